"""Organs at risk on head-and-neck CT: FocusNetV2."""
