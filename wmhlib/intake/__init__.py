"""Input data: NIfTI files, folders of scans, BIDS, public data sets, VGG19's weights, synthetic scans."""
