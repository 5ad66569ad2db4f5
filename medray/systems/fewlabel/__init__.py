"""One model of all organs from sources that each label a few."""
