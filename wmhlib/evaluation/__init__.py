"""From masks to tables: scores per scan and lesion, intervals, paired comparisons, free-response ROC, published results."""
