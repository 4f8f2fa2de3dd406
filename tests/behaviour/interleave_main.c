#include "interleave.h"

int main(int argc, char **argv)
{
	static const struct interleaving *const lists[] = {
	    agent_interleavings, event_interleavings, fill_interleavings, space_interleavings};

	return interleave_main(argc, argv, lists, sizeof(lists) / sizeof(*lists), NULL);
}
