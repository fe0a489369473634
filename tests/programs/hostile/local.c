/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* AF_UNIX: ways to a service outside whose name the policy refuses.
 *
 * local ATTACK FOLDER NAME: FOLDER holds docker.sock (a stream, refused), plain.sock (allowed),
 * and below datagram/ another docker.sock; NAME is an abstract name that is taken outside. */
#include "hostile.h"

static const char *folder, *name;
static struct sockaddr_un refused, allowed, datagram;

static struct sockaddr_un below(const char *file)
{
	char path[256];
	snprintf(path, sizeof path, "%s/%s", folder, file);
	return path_name(path);
}

static void reach(const char *what, const char *path)
{
	struct sockaddr_un a = path_name(path);
	int s = socket(AF_UNIX, SOCK_STREAM, 0);
	said(what, connect(s, (void *)&a, sizeof a));
	send(s, "x", 1, MSG_NOSIGNAL);
	close(s);
}

static void names(void)
{
	char path[512];
	reach("its own name", refused.sun_path);
	if (chdir(folder))
		return;
	reach("relative", "docker.sock");
	reach("relative", "./datagram/../docker.sock");
	reach("relative", "/proc/self/cwd/docker.sock");
	snprintf(path, sizeof path, "/proc/self/root%s", refused.sun_path);
	reach("by /proc", path);
	snprintf(path, sizeof path, "/proc/self/fd/%d", open("docker.sock", O_PATH));
	reach("by descriptor", path);
	unlink("link");
	said("symlink", symlink("docker.sock", "link"));
	reach("by symbolic link", "link");
	unlink("link");
	said("symlink", symlink(path, "link"));
	reach("by symbolic link to a descriptor", "link");
	unlink("link");
}

static void hard_link(void)
{
	struct sockaddr_un other = below("other.sock");
	unlink(other.sun_path);
	said("link", link(refused.sun_path, other.sun_path));
	reach("hard link", other.sun_path);
	unlink(other.sun_path);
}

static void renamed(void)
{
	struct sockaddr_un other = below("moved.sock");
	said("rename", rename(refused.sun_path, other.sun_path));
	reach("renamed", other.sun_path);
	rename(other.sun_path, refused.sun_path);
}

/* A name of the guest's own making, in a mount namespace of its own. */
static void bind_mount(void)
{
	struct sockaddr_un other = below("mounted.sock");
	said("unshare", unshare(CLONE_NEWUSER | CLONE_NEWNS));
	close(open(other.sun_path, O_CREAT | O_WRONLY, 0666));
	said("mount", mount(refused.sun_path, other.sun_path, NULL, MS_BIND, NULL));
	reach("mounted elsewhere", other.sun_path);
	char inside[512];
	struct sockaddr_un where = below("mounted");
	mkdir(where.sun_path, 0777);
	said("mount", mount(folder, where.sun_path, NULL, MS_BIND, NULL));
	said("chroot", chroot(where.sun_path));
	snprintf(inside, sizeof inside, "/docker.sock");
	reach("below another root", inside);
}

static volatile struct sockaddr_un shared;
static _Atomic int stop;
static _Atomic long changes;

static void *swap_path(void *arg)
{
	(void)arg;
	/* The two names have one length: docker.sock and plain3.sock. */
	size_t at = strlen(folder) + 1;
	for (long n = 0; !stop; n++) {
		const char *file = n & 1 ? "plain3.sock" : "docker.sock";
		for (int i = 0; i < 6; i++)
			shared.sun_path[at + i] = file[i];
		changes = n;
	}
	return NULL;
}

static void *swap_file(void *arg)
{
	struct sockaddr_un one = below("swap.one"), two = below("swap.two"), link = below("plain3.sock");
	(void)arg;
	for (long n = 0; !stop; n++) {
		unlink(one.sun_path), unlink(two.sun_path);
		if (symlink("docker.sock", one.sun_path) || symlink("plain.sock", two.sun_path))
			break;
		rename(n & 1 ? one.sun_path : two.sun_path, link.sun_path);
		changes = n;
	}
	return NULL;
}

static void race(void *(*with)(void *))
{
	pthread_t thread;
	long overlaps = 0;
	struct sockaddr_un third = below("plain3.sock");
	unlink(third.sun_path);
	if (with == swap_path && symlink("plain.sock", third.sun_path))
		return;
	memcpy((void *)&shared, &third, sizeof third);
	pthread_create(&thread, NULL, with, NULL);
	for (double until = seconds() + 2; seconds() < until; tries++) {
		long before = changes;
		int s = socket(AF_UNIX, SOCK_STREAM | (tries & 1 ? SOCK_NONBLOCK : 0), 0);
		connect(s, (void *)&shared, sizeof shared);
		overlaps += changes != before;
		close(s);
	}
	stop = 1;
	pthread_join(thread, NULL);
	unlink(third.sun_path);
	printf("changes=%ld overlaps=%ld\n", changes, overlaps);
}

static void path_race(void)
{
	race(swap_path);
}

static void link_race(void)
{
	race(swap_file);
}

static void datagrams(void)
{
	struct iovec data = { "x", 1 };
	struct mmsghdr m = { .msg_hdr = { &datagram, sizeof datagram, &data, 1 } };
	int s = socket(AF_UNIX, SOCK_DGRAM, 0);
	said("connect", connect(s, (void *)&datagram, sizeof datagram));
	said("sendto", sendto(s, "x", 1, 0, (void *)&datagram, sizeof datagram));
	said("sendmsg", sendmsg(s, &m.msg_hdr, 0));
	said("sendmmsg", sendmmsg(s, &m, 1, 0));
}

static socklen_t abstract(struct sockaddr_un *a)
{
	*a = (struct sockaddr_un){ AF_UNIX };
	return offsetof(struct sockaddr_un, sun_path) + 1 + sprintf(a->sun_path + 1, "%s", name);
}

static void abstract_name(void)
{
	struct sockaddr_un a;
	socklen_t size = abstract(&a);
	int s = socket(AF_UNIX, SOCK_STREAM, 0), d = socket(AF_UNIX, SOCK_DGRAM, 0);
	said("connect", connect(s, (void *)&a, size));
	memcpy(a.sun_path + 1 + strlen(name), "-datagram", 9);
	said("connect", connect(d, (void *)&a, size + 9));
	said("sendto", sendto(d, "x", 1, 0, (void *)&a, size + 9));
}

/* A name that was ours is another's now. */
static void stale_abstract(void)
{
	struct sockaddr_un a;
	socklen_t size = abstract(&a);
	int s = socket(AF_UNIX, SOCK_STREAM, 0);
	said("bind", bind(s, (void *)&a, size));
	close(s);
	puts("given up");
	if (read(0, &s, 1) != 1)
		return;
	s = socket(AF_UNIX, SOCK_STREAM, 0);
	said("connect", connect(s, (void *)&a, size));
}

int main(int argc, char **argv)
{
	static const struct attack attacks[] = {
		{ "abstract_name", abstract_name }, { "bind_mount", bind_mount }, { "datagrams", datagrams },
		{ "hard_link", hard_link }, { "link_race", link_race }, { "names", names },
		{ "path_race", path_race }, { "renamed", renamed }, { "stale_abstract", stale_abstract }, { 0 },
	};
	if (argc < 4)
		return 2;
	folder = argv[2], name = argv[3];
	refused = below("docker.sock"), allowed = below("plain.sock"), datagram = below("datagram/docker.sock");
	return dispatch(attacks, argc, argv);
}
