//! Sizes (`"10 MB"`, `"64 KiB"`) and times (`"90s"`, `"24h"`) as people write them.
