#pragma once

/* Removes a directory and all in it, following no links. Best effort. */
void remove_tree(int parent, const char *name);
