"""Multiple-sclerosis lesions in MR volumes of several channels."""
