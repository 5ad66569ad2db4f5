"""x"""

write_report = None
