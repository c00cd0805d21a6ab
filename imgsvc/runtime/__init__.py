"""What runs the process and knows nothing of images: settings, logs, metrics, tasks."""
