"""The strongest narrow student: trained item by item on co-occurrence rules."""
