"""Multiple-sclerosis lesions on MR volumes of several channels."""
