/* Bytes from a control connection: the daemon's own methods over the fake pager. */
#include <stdint.h>
#include <stdlib.h>
#include <uv.h>

#include "control.h"
#include "fake_pager.h"
#include "log.h"
#include "monitor.h"
#include "registry.h"
#include "snapshots.h"
#include "traces.h"
#include "varlink.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void on_send(struct varlink *link, const char *message, size_t size)
{
	if (message[size - 1])
		abort();
	(void)link;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct pager_config config = {0};
	struct registry registry;
	struct monitors monitors;
	struct snapshots snapshots;
	struct traces traces;
	struct control control;
	struct caller caller = {&control, 1000, 1};
	struct varlink link;
	uv_loop_t loop;
	size_t half = size / 2;

	log_init(true);
	if (pager_new(&config, &control.pager, NULL) < 0)
		abort();
	uv_loop_init(&loop);
	registry_init(&registry, control.pager);
	monitors_init(&monitors, &loop, &registry);
	control.registry = &registry;
	control.monitors = &monitors;
	control.snapshots = &snapshots;
	control.traces = &traces;
	snapshots_init(&snapshots, control.pager);
	traces_init(&traces, control.pager);
	varlink_init(&link, &control_service, on_send, &caller);
	if (varlink_feed(&link, (const char *)data, half) == 0)
		varlink_feed(&link, (const char *)data + half, size - half);
	varlink_done(&link);
	control_caller_gone(&caller);
	uv_run(&loop, UV_RUN_DEFAULT);
	if (uv_loop_close(&loop) < 0)
		abort();
	registry_done(&registry);
	pager_free(control.pager);
	return 0;
}
