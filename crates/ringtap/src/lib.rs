pub mod tracefs;
