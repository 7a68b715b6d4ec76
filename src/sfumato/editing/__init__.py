"""Tasks on pictures: each is a plan, an after-hook, a guidance, and what is done to the finished picture."""
