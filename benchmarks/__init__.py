"""What the project costs against the same steps typed into a shell script: `make bench`, and docs/performance.md."""
