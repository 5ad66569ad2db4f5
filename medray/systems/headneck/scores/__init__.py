"""What held-out scans say of contours: organ by organ, network by network."""
