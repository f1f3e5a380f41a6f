"""AI services behind small interfaces: one file per vendor, one table that names them."""
