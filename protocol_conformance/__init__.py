"""What any beanstalkd-compatible server must do, as tests that run against one; see README.md."""
