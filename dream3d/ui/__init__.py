"""The web page: jobs that outlive it, and the page that watches them."""
