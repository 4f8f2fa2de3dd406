/*
 * The daemon's log: standard error, one line a message. Under systemd the lines carry the journal's
 * "<N>" priority, else the program's name. Only daemon/ logs.
 */
#pragma once

#include <stdbool.h>
#include <syslog.h>

/* quiet = warnings and errors only. Call it first; without it everything is written plainly. */
void log_init(bool quiet);

__attribute__((format(printf, 2, 3))) void log_message(int priority, const char *format, ...);

/* For what a client can provoke or a failing disk repeats: at most 20 lines in ten seconds, then
 * how many were left out. */
__attribute__((format(printf, 2, 3))) void log_limited(int priority, const char *format, ...);

#define log_error(...)	 log_message(LOG_ERR, __VA_ARGS__)
#define log_warning(...) log_message(LOG_WARNING, __VA_ARGS__)
#define log_info(...)	 log_message(LOG_INFO, __VA_ARGS__)
