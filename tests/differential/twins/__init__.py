"""Two beanstalk servers fed the same bytes: the harness of the differential tests."""
