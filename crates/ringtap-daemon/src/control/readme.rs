//! `README`: the files in short. Clients look for words in it to learn what there is, so every file, command and
//! keyword that exists stands here under its name, and nothing else does.

/// The text.
pub(crate) const TEXT: &[u8] = b"ringtap: application events behind the files of a tracefs\n\
\n\
The files of a directory:\n\
  tracing_on\t\t- 0 stops recording into the buffers, 1 goes on\n\
  trace\t\t\t- what is in the buffers, as text; opened for truncation (echo > trace) they are emptied\n\
  trace_pipe\t\t- the same, each event once: reading consumes\n\
  trace_marker\t\t- what is written here becomes an event\n\
  trace_marker_raw\t- the same for bytes: four of a number, then others\n\
  snapshot\t\t- a copy of the buffers: write 1 to take one, 0 to free it, 2 to empty it\n\
  current_tracer\t- always nop: there are events only\n\
  available_tracers\t- nop\n\
  error_log\t- what was wrong with the last commands\n\
  buffer_size_kb\t- KiB of each CPU's buffer\n\
  buffer_total_size_kb\t- KiB of all buffers\n\
  buffer_subbuf_size_kb\t- KiB of a sub-buffer, the unit that readers are given\n\
  buffer_percent\t- how full a buffer is when those who wait for it are woken\n\
  free_buffer\t\t- closing it shrinks the buffers\n\
  trace_clock\t\t- the clock that stamps events:\n\
       local, global, perf, mono:   CLOCK_MONOTONIC\n\
       mono_raw, boot, tai:   the clocks of these names\n\
     counter:   Not a time: one more with each event\n\
     x86-tsc:   The processor's counter\n\
  timestamp_mode\t- delta: an event stores the time since the one before\n\
  trace_options\t\t- switches, by name; with no before the name they are off\n\
  options/\t\t- the same, a file for each\n\
  tracing_cpumask\t- the CPUs that are traced\n\
  saved_cmdlines, saved_tgids\t- names and thread groups of tasks that wrote events\n\
  saved_cmdlines_size\t- how many of these are kept\n\
  printk_formats\t- nothing: the texts of events stand in their formats\n\
  available_events\t- all events that programs declared\n\
  set_event\t\t- the events that are on; write system:event, or !system:event\n\
  set_event_pid, set_event_notrace_pid\t- tasks whose events are recorded, or are not\n\
  instances\t\t- mkdir makes a set of buffers with settings of its own, rmdir removes it\n\
  per_cpu/cpuN/\t\t- the files of one CPU:\n\
      trace_pipe_raw\t- its sub-buffers, to be read, spliced, or mapped (TRACE_MMAP_IOCTL_GET_READER)\n\
      stats\t\t- its counters\n\
  events/\t\t- all events, by system:\n\
      enable\t\t- 0 and 1 switch them off and on\n\
  events/<system>/<event>/\n\
      enable, filter\t- off and on; which of them are recorded\n\
      id, format\t- its number, and how its records are laid out\n\
      trigger\t\t- what an event sets off, <trigger>[:count][ if <filter>]; with ! before it, no more\n\
\t   trigger: traceon, traceoff\n\
\t            enable_event:<system>:<event>\n\
\t            disable_event:<system>:<event>\n\
\t\t    stacktrace\n\
\t\t    snapshot\n\
\t\t    hist (see below)\n\
      hist\t\t- what hist triggers counted:\n\
\t    hist:keys=<field>[,<field>][:values=<field>][:sort=<field>][:size=#entries][:pause][:continue][:clear][:name=<name>]\n\
\t    modifiers of fields: .hex .sym .sym-offset .log2 .execname .usecs .buckets=size\n";
