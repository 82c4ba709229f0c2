//! What is older than the retention goes, whole partitions or an app's rows, and whoever may have missed
//! it is told first.

mod apps;
mod interrupted;
mod leftovers;
mod old_days;
mod prune;
mod removal;
