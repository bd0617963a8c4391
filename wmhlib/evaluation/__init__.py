"""Tables from masks: metrics per scan and lesion, intervals, paired comparisons, free-response ROC, published
results."""
