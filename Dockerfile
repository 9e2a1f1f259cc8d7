# docker build -t beanspiked . && docker run -p 11300:11300 -v jobs:/data beanspiked -b /data
# The arguments are beanstalkd's, so a command line written for a beanstalkd image works unchanged.
FROM python:3.13-slim AS build
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY pyproject.toml setup.py README.md LICENSE ./
COPY bin bin
COPY beanspiked beanspiked
COPY lua lua
# A failure to compile is an error here: an image is built once and run often.
RUN BEANSPIKED_PURE=0 BEANSPIKED_OPT_LEVEL=3 pip wheel --no-cache-dir --wheel-dir /wheels '.[admin]'

FROM python:3.13-slim
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-index --find-links /wheels 'beanspiked[admin]'
RUN useradd --system --uid 11300 --home-dir /data --shell /usr/sbin/nologin beanspiked \
    && install -d -m 700 -o beanspiked -g beanspiked /data
USER beanspiked
WORKDIR /data
VOLUME /data
EXPOSE 11300 11301
STOPSIGNAL SIGTERM
ENTRYPOINT ["beanspiked"]
