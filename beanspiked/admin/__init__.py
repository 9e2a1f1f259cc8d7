"""The admin port: health, metrics, a JSON API and a console, over HTTP. It needs the extra `admin`."""
