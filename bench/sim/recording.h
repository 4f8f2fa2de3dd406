/*
 * Recordings of `upager trace` as traces.
 *
 * A recording has what the pager saw: faults, what came in with them, and memory that the program gave back;
 * not the touches of what was resident. Pages that came along count as touched if the program's next fault
 * there is where they end, and they have not left by then: it has gone through them.
 *
 * What is first seen coming back had been used before, unseen: before the limit was near, or before the
 * recording began. All of it is taken to be there at the start.
 */
#pragma once

struct history;
struct recording;

/* 0; what trace_file.h says; or -EBADMSG, too, for a record that no pager writes. */
int recording_read(const char *path, struct history *history, struct recording *ret);
