"""Clinical images as numpy arrays: DICOM to Hounsfield units, windows, head mask, geometry. No torch, no Ray."""
