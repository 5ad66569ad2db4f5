"""A job's page: how it is made, and the charts and sections that every system's has."""
