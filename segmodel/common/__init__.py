"""What is not about the paper: commands, options, errors, files, devices, processes, pictures, pages and tables."""
