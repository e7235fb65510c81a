/*
 * hold TAP... : makes these TAP devices and sends every frame that they get back into them after a few milliseconds, so
 * that those behind it pass it. The virtio header goes along, so GSO and partial checksums stay as they are.
 */
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define HOLD_MS 3
#define TAPS 8
#define FRAMES 256
#define FRAME_BYTES (65536 + 64)

struct frame {
	int64_t due; /* ms */
	ssize_t bytes;
	int tap;
	unsigned char data[FRAME_BYTES];
};

static struct frame queue[FRAMES];

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000LL + t.tv_nsec / 1000000;
}

static int make_tap(const char *name)
{
	struct ifreq r = { .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR };
	int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK);

	strncpy(r.ifr_name, name, IFNAMSIZ - 1);
	if (fd < 0 || ioctl(fd, TUNSETIFF, &r) ||
	    ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN)) {
		perror(name);
		exit(1);
	}
	return fd;
}

int main(int argc, char **argv)
{
	struct pollfd taps[TAPS];
	int n = argc - 1;
	unsigned head = 0, tail = 0;

	if (n > TAPS)
		return 2;
	for (int i = 0; i < n; i++)
		taps[i] = (struct pollfd){ .fd = make_tap(argv[i + 1]) };
	puts("ready");
	fflush(stdout);
	for (;;) {
		int full = head - tail == FRAMES;
		int64_t wait = head == tail ? -1 : queue[tail % FRAMES].due - now_ms();
		for (int i = 0; i < n; i++)
			taps[i].events = full ? 0 : POLLIN;
		if (head == tail || wait > 0)
			poll(taps, n, wait > 0 ? (int)wait : -1);
		for (int i = 0; i < n && head - tail < FRAMES; i++) {
			struct frame *f = &queue[head % FRAMES];
			f->bytes = read(taps[i].fd, f->data, sizeof f->data);
			if (f->bytes <= 0)
				continue;
			f->tap = i;
			f->due = now_ms() + HOLD_MS;
			head++;
		}
		while (head != tail && queue[tail % FRAMES].due <= now_ms()) {
			struct frame *f = &queue[tail++ % FRAMES];
			if (write(taps[f->tap].fd, f->data, f->bytes) < 0)
				perror("a held frame is lost");
		}
	}
}
