"""What passes the uncertainty of a backbone on to the detections."""
