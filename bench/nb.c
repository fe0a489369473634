// SPDX-License-Identifier: MIT OR Apache-2.0
/* The load that netshunt and its peers are measured with: server and clients in one static binary.
 *
 *   gcc -O2 -Wall -static -pthread -o nb nb.c
 *
 * Server: nb server BASE            TCP and UDP on 0.0.0.0, in the foreground
 *    BASE    TCP echo (epoll, one thread) and UDP echo (one thread)
 *    BASE+1  TCP sink: reads to the end, answers with the count in 8 bytes
 *    BASE+2  TCP source: writes 128 KiB blocks until the peer goes away
 *    BASE+3  HTTP: whatever comes in, 200 and a body of 6 bytes go out; then it closes
 *    BASE+4  TCP: 8 bytes, how much the sink has read so far in all its connections
 * Client: nb MODE HOST PORT ...     prints one line of JSON; an "error" or "err" in it is a failure
 *    tcp_rr   HOST BASE   SEC [SIZE]   ping-pong on one open connection
 *    tcp_crr  HOST BASE   SEC [MAXN]   connect, one byte there and back, close
 *    udp_rr   HOST BASE   SEC [SIZE]   ping-pong on one connected UDP socket
 *    udp_dns  HOST BASE   SEC [SIZE]   a new UDP socket for each request
 *    conns    HOST BASE   N   [HOLD]   N connections, all held, three rounds of echo
 *    hold     HOST BASE   N            N connections, echoed once, held until standard input ends
 *    tx       HOST BASE+1 SEC [P]      client to server over P connections; counts what arrived
 *    rx       HOST BASE+2 SEC [P]      server to client over P connections
 *    ttfb     HOST BASE+3              a GET; prints when its first byte is here
 * Both:   nb local BASE MODE PORT ...   a server in a child, and a client of 127.0.0.1
 * What this machine can do at best, without a network:
 *    unix_tput | unix_rr | pipe_rr | futex_rr | memcpy | getppid SEC
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BLK (128 * 1024)
#define MAXS 4000000

static void die(const char *what)
{
    printf("{\"error\":\"%s: %s\"}\n", what, strerror(errno));
    exit(1);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static struct sockaddr_in addr_of(const char *host, int port)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(port) };
    if (inet_pton(AF_INET, host, &a.sin_addr) != 1) {
        errno = EINVAL;
        die("address");
    }
    return a;
}

static void nodelay(int fd)
{
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

static int tcp_connect(const struct sockaddr_in *a)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    if (connect(fd, (const struct sockaddr *)a, sizeof *a) < 0) {
        int e = errno;
        close(fd);
        errno = e;
        return -1;
    }
    return fd;
}

/* ---------------------------------------------------------------- samples */
static float *smp;
static size_t nsmp;

static void smp_init(void) { smp = malloc(sizeof(float) * MAXS); nsmp = 0; }
static void smp_add(double s) { if (nsmp < MAXS) smp[nsmp++] = (float)(s * 1e6); }
static int fcmp(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return x < y ? -1 : x > y;
}
static double pct(double p) { return nsmp ? smp[(size_t)(p * (nsmp - 1))] : 0; }
static double cpu_self(void)
{
    struct rusage r;
    getrusage(RUSAGE_SELF, &r);
    return r.ru_utime.tv_sec + r.ru_utime.tv_usec / 1e6 +
           r.ru_stime.tv_sec + r.ru_stime.tv_usec / 1e6;
}
static void report(const char *mode, double secs, long errs)
{
    if (!nsmp) {                       /* its percentiles would read as the best ever measured */
        errno = ETIME;
        die(mode);
    }
    qsort(smp, nsmp, sizeof *smp, fcmp);
    printf("{\"mode\":\"%s\",\"n\":%zu,\"secs\":%.3f,\"rate\":%.1f,\"errs\":%ld,"
           "\"p50_us\":%.2f,\"p90_us\":%.2f,\"p99_us\":%.2f,\"max_us\":%.1f,\"cpu_s\":%.3f}\n",
           mode, nsmp, secs, nsmp / secs, errs, pct(.5), pct(.9), pct(.99),
           pct(1.0), cpu_self());
}

/* ----------------------------------------------------------------- server */
static int listen_on(int port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(port) };
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (void *)&a, sizeof a) < 0 || listen(fd, 4096) < 0)
        die("listen");
    return fd;
}

static void srv_echo(int port)
{
    static char buf[65536];
    int l = listen_on(port), ep = epoll_create1(0), n;
    struct epoll_event ev = { .events = EPOLLIN, .data.fd = l }, evs[256];
    fcntl(l, F_SETFL, O_NONBLOCK);
    epoll_ctl(ep, EPOLL_CTL_ADD, l, &ev);
    while ((n = epoll_wait(ep, evs, 256, -1)) >= 0 || errno == EINTR)
        for (int i = 0; i < n; i++) {
            int fd = evs[i].data.fd;
            if (fd == l) {
                int c = accept4(l, NULL, NULL, SOCK_CLOEXEC);
                if (c < 0)
                    continue;
                nodelay(c);
                ev.events = EPOLLIN;
                ev.data.fd = c;
                epoll_ctl(ep, EPOLL_CTL_ADD, c, &ev);
                continue;
            }
            ssize_t r = recv(fd, buf, sizeof buf, MSG_DONTWAIT);
            if (r < 0 && errno == EAGAIN)
                continue;
            if (r <= 0 || send(fd, buf, r, MSG_NOSIGNAL) != r)
                close(fd);
        }
    die("epoll");
}

static void srv_udp(int port)
{
    static char buf[65536];
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(port) };
    if (bind(fd, (void *)&a, sizeof a) < 0)
        die("udp bind");
    for (;;) {
        socklen_t l = sizeof a;
        ssize_t r = recvfrom(fd, buf, sizeof buf, 0, (void *)&a, &l);
        if (r >= 0)
            sendto(fd, buf, r, 0, (void *)&a, l);
    }
}

static _Atomic uint64_t sunk;

static void *sink_conn(void *p)
{
    int fd = (int)(intptr_t)p;
    char *b = malloc(BLK);
    uint64_t tot = 0;
    ssize_t r;
    while ((r = read(fd, b, BLK)) > 0) {
        tot += r;
        atomic_fetch_add_explicit(&sunk, r, memory_order_relaxed);
    }
    if (write(fd, &tot, 8) != 8) { /* peer gone */ }
    close(fd);
    free(b);
    return NULL;
}
static void *sunk_conn(void *p)
{
    int fd = (int)(intptr_t)p;
    uint64_t tot = atomic_load(&sunk);
    if (write(fd, &tot, 8) != 8) { /* peer gone */ }
    close(fd);
    return NULL;
}
static void *source_conn(void *p)
{
    int fd = (int)(intptr_t)p;
    char *b = calloc(1, BLK);
    while (write(fd, b, BLK) > 0)
        ;
    close(fd);
    free(b);
    return NULL;
}
static void *http_conn(void *p)
{
    static const char R[] = "HTTP/1.0 200 OK\r\nContent-Length: 6\r\n\r\nhello\n";
    int fd = (int)(intptr_t)p;
    char b[4096];
    if (read(fd, b, sizeof b) > 0 && write(fd, R, sizeof R - 1) < 0) { /* gone */ }
    shutdown(fd, SHUT_WR);
    while (read(fd, b, sizeof b) > 0)
        ;
    close(fd);
    return NULL;
}
static void srv_threads(int port, void *(*f)(void *))
{
    int l = listen_on(port);
    for (;;) {
        int c = accept(l, NULL, NULL);
        pthread_t t;
        if (c < 0)
            continue;
        if (pthread_create(&t, NULL, f, (void *)(intptr_t)c))
            close(c);
        else
            pthread_detach(t);
    }
}
static void *srv_sunk(void *p)
{
    srv_threads((int)(intptr_t)p, sunk_conn);
    return NULL;
}
static void srv_sink(int base)
{
    pthread_t t;                       /* one process: they share the count */
    if (pthread_create(&t, NULL, srv_sunk, (void *)(intptr_t)(base + 4)))
        die("thread");
    srv_threads(base + 1, sink_conn);
}
static int server(int base)
{
    struct rlimit rl = { 65536, 65536 };
    setrlimit(RLIMIT_NOFILE, &rl);
    signal(SIGPIPE, SIG_IGN);
    if (!fork()) srv_echo(base);
    if (!fork()) srv_udp(base);
    if (!fork()) srv_sink(base);
    if (!fork()) srv_threads(base + 2, source_conn);
    if (!fork()) srv_threads(base + 3, http_conn);
    while (wait(NULL) > 0)
        ;
    return 0;
}

/* ---------------------------------------------------------------- clients */
static int rr_loop(const char *mode, int fd, double secs, int size, int udp)
{
    char out[2048] = { 'x' }, in[2048];
    long errs = 0;
    struct timeval tv = { 0, 500000 };
    if (udp)
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
    smp_init();
    double warm = now() + 0.2, t0 = 0, end = warm + secs, t = now();
    for (;;) {
        double s = now();
        if (s >= end)
            break;
        if (send(fd, out, size, 0) != size)
            die("send");
        int got = 0;
        while (got < size) {
            ssize_t r = recv(fd, in + got, size - got, 0);
            if (r <= 0) {
                if (udp && errno == EAGAIN) { errs++; break; }
                die("recv");
            }
            got += r;
        }
        t = now();
        if (s >= warm && got == size) {
            if (!t0) t0 = s;
            smp_add(t - s);
        }
    }
    report(mode, t - t0, errs);
    return 0;
}

static int c_tcp_rr(const char *h, int p, double secs, int size)
{
    struct sockaddr_in a = addr_of(h, p);
    int fd = tcp_connect(&a);
    if (fd < 0)
        die("connect");
    nodelay(fd);
    return rr_loop("tcp_rr", fd, secs, size, 0);
}
static int c_udp_rr(const char *h, int p, double secs, int size)
{
    struct sockaddr_in a = addr_of(h, p);
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    if (fd < 0 || connect(fd, (void *)&a, sizeof a) < 0)
        die("udp connect");
    return rr_loop("udp_rr", fd, secs, size, 1);
}
static int c_udp_dns(const char *h, int p, double secs, int size)
{
    struct sockaddr_in a = addr_of(h, p);
    char b[2048] = { 'q' };
    long errs = 0, maxn = 20000;
    smp_init();
    double t0 = now(), end = t0 + secs, s;
    while ((s = now()) < end && (long)nsmp < maxn) {
        int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        struct timeval tv = { 0, 500000 };
        if (fd < 0)
            die("socket");
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
        if (connect(fd, (void *)&a, sizeof a) < 0 || send(fd, b, size, 0) != size ||
            recv(fd, b, sizeof b, 0) != size)
            errs++;
        else
            smp_add(now() - s);
        close(fd);
    }
    report("udp_dns", now() - t0, errs);
    return 0;
}
static int c_tcp_crr(const char *h, int p, double secs, long maxn)
{
    struct sockaddr_in a = addr_of(h, p);
    long errs = 0;
    char b = 'c';
    int e = 0;
    smp_init();
    double t0 = now(), end = t0 + secs, s;
    while ((s = now()) < end && (long)nsmp < maxn && errs < 100) {
        int fd = tcp_connect(&a);
        if (fd < 0) { e = errno; errs++; continue; }
        nodelay(fd);
        if (send(fd, &b, 1, MSG_NOSIGNAL) != 1 || recv(fd, &b, 1, 0) != 1) {
            e = errno; errs++; close(fd); continue;
        }
        close(fd);
        smp_add(now() - s);
    }
    if (!nsmp) { errno = e; die("tcp_crr"); }
    report("tcp_crr", now() - t0, errs);
    return 0;
}
static int c_conns(const char *h, int p, int n, double hold)
{
    struct sockaddr_in a = addr_of(h, p);
    struct rlimit rl;
    getrlimit(RLIMIT_NOFILE, &rl);
    rl.rlim_cur = rl.rlim_max;
    setrlimit(RLIMIT_NOFILE, &rl);
    int *fd = malloc(sizeof(int) * n), ok = 0, echo[3] = { 0, 0, 0 }, e = 0;
    double t0 = now(), tc, te[3];
    for (int i = 0; i < n; i++) {
        struct timeval tv = { 5, 0 };
        fd[ok] = tcp_connect(&a);
        if (fd[ok] < 0) { e = errno; if (now() - t0 > 60) break; continue; }
        setsockopt(fd[ok], SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
        nodelay(fd[ok]);
        ok++;
    }
    tc = now() - t0;
    for (int r = 0; r < 3; r++) {
        char b[64];
        double s = now();
        memset(b, 'a' + r, 64);
        for (int i = 0; i < ok; i++)
            if (send(fd[i], b, 64, MSG_NOSIGNAL) != 64) e = errno;
        for (int i = 0; i < ok; i++) {
            ssize_t k = recv(fd[i], b, 64, MSG_WAITALL);
            if (k == 64 && b[63] == 'a' + r) echo[r]++;
            else e = k < 0 ? errno : EPIPE;
            if (now() - s > 30) break;
        }
        te[r] = now() - s;
        if (!r) usleep(hold * 1e6);
    }
    printf("{\"mode\":\"conns\",\"want\":%d,\"connected\":%d,\"echo\":[%d,%d,%d],"
           "\"connect_s\":%.4f,\"echo_s\":[%.4f,%.4f,%.4f],\"last_err\":\"%s\"}\n",
           n, ok, echo[0], echo[1], echo[2], tc, te[0], te[1], te[2], e ? strerror(e) : "");
    return 0;
}

static int c_hold(const char *h, int p, int n)
{
    struct sockaddr_in a = addr_of(h, p);
    char b;
    for (int i = 0; i < n; i++) {
        int fd = tcp_connect(&a);
        if (fd < 0)
            die("connect");
        b = 'h';
        if (send(fd, &b, 1, MSG_NOSIGNAL) != 1 || recv(fd, &b, 1, 0) != 1)
            die("echo");
    }
    printf("{\"mode\":\"hold\",\"connected\":%d}\n", n);
    while (read(0, &b, 1) > 0)
        ;
    return 0;
}

/* Some networks stall. Then what arrived until here is the result, not the time to the very end. */
#define PATIENCE 1.0

struct bulk { struct sockaddr_in a; double end; int tx; uint64_t bytes; int err, late; };
static void limit(int fd, int option, double secs)
{
    struct timeval tv = { (time_t)secs, (secs - (time_t)secs) * 1e6 };
    setsockopt(fd, SOL_SOCKET, option, &tv, sizeof tv);
}
static void *bulk_thr(void *p)
{
    struct bulk *b = p;
    char *buf = calloc(1, BLK);
    int fd = tcp_connect(&b->a);
    if (fd < 0) { b->err = errno; return NULL; }
    limit(fd, b->tx ? SO_SNDTIMEO : SO_RCVTIMEO, 0.1);
    while (now() < b->end) {
        ssize_t r = b->tx ? write(fd, buf, BLK) : read(fd, buf, BLK);
        if (r < 0 && errno == EAGAIN) continue;
        if (r <= 0) { b->err = r ? errno : EPIPE; break; }
        b->bytes += r;
    }
    if (b->tx && !b->err) {            /* count what arrived, not what was queued */
        uint64_t cnt = 0;
        shutdown(fd, SHUT_WR);
        limit(fd, SO_RCVTIMEO, PATIENCE);
        ssize_t r = recv(fd, &cnt, 8, MSG_WAITALL);
        if (r == 8) b->bytes = cnt;
        else if (r < 0 && errno == EAGAIN) b->late = 1;
        else b->err = r < 0 ? errno : EPIPE;
    }
    if (b->late) {                     /* do not drag it on */
        struct linger now = { 1, 0 };
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    }
    close(fd);
    free(buf);
    return NULL;
}
/* What the sink has read so far, of everybody. */
static uint64_t all_sunk(const char *h, int p)
{
    struct sockaddr_in a = addr_of(h, p + 3);
    uint64_t tot = 0;
    int fd = tcp_connect(&a);
    if (fd < 0)
        die("connect");
    limit(fd, SO_RCVTIMEO, 5);
    if (recv(fd, &tot, 8, MSG_WAITALL) != 8)
        die("count");
    close(fd);
    return tot;
}
static int c_bulk(int tx, const char *h, int p, double secs, int par)
{
    struct bulk b[64];
    pthread_t t[64];
    uint64_t tot = 0, before = tx ? all_sunk(h, p) : 0;
    int err = 0, late = 0;
    signal(SIGPIPE, SIG_IGN);
    if (par > 64) par = 64;
    double t0 = now();
    for (int i = 0; i < par; i++) {
        b[i] = (struct bulk){ addr_of(h, p), t0 + secs, tx, 0, 0, 0 };
        pthread_create(&t[i], NULL, bulk_thr, &b[i]);
    }
    for (int i = 0; i < par; i++) {
        pthread_join(t[i], NULL);
        tot += b[i].bytes;
        late += b[i].late;
        if (b[i].err) err = b[i].err;
    }
    double el = now() - t0;
    if (late)
        tot = all_sunk(h, p) - before;
    printf("{\"mode\":\"%s\",\"p\":%d,\"secs\":%.3f,\"bytes\":%llu,\"gbps\":%.3f,"
           "\"gib_s\":%.3f,\"cpu_s\":%.3f,\"late\":%d,\"err\":\"%s\"}\n", tx ? "tx" : "rx", par, el,
           (unsigned long long)tot, tot * 8 / el / 1e9, tot / el / (1 << 30), cpu_self(), late,
           err ? strerror(err) : "");
    return 0;
}
static int c_ttfb(const char *h, int p)
{
    struct sockaddr_in a = addr_of(h, p);
    double t0 = now();
    char b[512];
    int fd = -1, tries = 0;
    /* The network of some peers comes up after the command has started: try again, and count. */
    while ((fd = tcp_connect(&a)) < 0 && ++tries < 3000)
        usleep(1000);
    if (fd < 0) die("connect");
    if (write(fd, "GET / HTTP/1.0\r\n\r\n", 18) != 18 || read(fd, b, sizeof b) <= 0)
        die("get");
    printf("{\"mode\":\"ttfb\",\"in_guest_ms\":%.3f,\"retries\":%d}\n", (now() - t0) * 1e3, tries);
    return 0;
}

/* ----------------------------------------------------------- local limits */
static int l_unix_tput(double secs)
{
    int sv[2];
    char *buf = calloc(1, BLK);
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, sv) < 0) die("socketpair");
    if (!fork()) {
        close(sv[0]);
        while (read(sv[1], buf, BLK) > 0)
            ;
        _exit(0);
    }
    close(sv[1]);
    uint64_t tot = 0;
    double t0 = now();
    while (now() - t0 < secs)
        tot += write(sv[0], buf, BLK);
    double el = now() - t0;
    printf("{\"mode\":\"unix_tput\",\"gbps\":%.3f,\"gib_s\":%.3f}\n", tot * 8 / el / 1e9, tot / el / (1 << 30));
    return 0;
}
static int l_fd_rr(const char *mode, double secs, int rd0, int wr0, int rd1, int wr1)
{
    char c = 'x';
    pid_t pid = fork();
    if (!pid) {
        while (read(rd1, &c, 1) == 1 && write(wr1, &c, 1) == 1)
            ;
        _exit(0);
    }
    smp_init();
    double t0 = now(), s;
    while ((s = now()) - t0 < secs) {
        if (write(wr0, &c, 1) != 1 || read(rd0, &c, 1) != 1) die("rr");
        smp_add(now() - s);
    }
    report(mode, now() - t0, 0);
    kill(pid, SIGKILL);
    return 0;
}
static int l_futex_rr(double secs)
{
    atomic_int *w = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t pid = fork();
    for (int me = pid ? 0 : 1; me == 1;) {
        while (atomic_load(w) != 1)
            syscall(SYS_futex, w, FUTEX_WAIT, 0, NULL, NULL, 0);
        atomic_store(w, 0);
        syscall(SYS_futex, w, FUTEX_WAKE, 1, NULL, NULL, 0);
    }
    smp_init();
    double t0 = now(), s;
    while ((s = now()) - t0 < secs) {
        atomic_store(w, 1);
        syscall(SYS_futex, w, FUTEX_WAKE, 1, NULL, NULL, 0);
        while (atomic_load(w) != 0)
            syscall(SYS_futex, w, FUTEX_WAIT, 1, NULL, NULL, 0);
        smp_add(now() - s);
    }
    report("futex_rr", now() - t0, 0);
    kill(pid, SIGKILL);
    return 0;
}
static int l_memcpy(double secs)
{
    const size_t sz = 256 << 20;
    char *a = malloc(sz), *b = malloc(sz), *c = malloc(BLK), *d = malloc(BLK);
    memset(a, 1, sz); memset(b, 2, sz); memset(c, 1, BLK); memset(d, 2, BLK);
    uint64_t tot = 0, tot2 = 0;
    double t0 = now(), t1;
    while ((t1 = now()) - t0 < secs) { memcpy(b, a, sz); __asm__ volatile("" ::"r"(b) : "memory"); tot += sz; }
    double s0 = now(), s1;
    while ((s1 = now()) - s0 < secs)
        for (int i = 0; i < 64; i++) { memcpy(d, c, BLK); __asm__ volatile("" ::"r"(d) : "memory"); tot2 += BLK; }
    printf("{\"mode\":\"memcpy\",\"ram_gib_s\":%.2f,\"l2_128k_gib_s\":%.2f}\n",
           tot / (t1 - t0) / (1 << 30), tot2 / (s1 - s0) / (1 << 30));
    return 0;
}
static int l_getppid(double secs)
{
    long n = 0;
    double t0 = now(), el;
    while ((el = now() - t0) < secs)
        for (int i = 0; i < 1000; i++, n++)
            syscall(SYS_getppid);
    printf("{\"mode\":\"getppid\",\"ns\":%.1f}\n", el * 1e9 / n);
    return 0;
}

static int run(int c, char **v);

static pid_t local_server;

static void end_local(void)
{
    kill(-local_server, SIGKILL);
}

static int l_local(int c, char **v)
{
    int base = atoi(v[2]);
    pid_t child = fork();
    if (child < 0) die("fork");
    if (!child) {
        setpgid(0, 0);
        return server(base);
    }
    setpgid(child, child);
    local_server = child;
    atexit(end_local);
    /* Each port has a process of its own, or a thread. */
    for (int port = base; port < base + 5;) {
        struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(port) };
        to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        if (fd < 0) die("socket");
        if (!connect(fd, (void *)&to, sizeof to))
            port++;
        else if (waitpid(child, NULL, WNOHANG))
            die("the server");
        else
            usleep(1000);
        close(fd);
    }
    char *words[c];
    words[0] = v[0];
    words[1] = v[3];
    words[2] = "127.0.0.1";
    memcpy(words + 3, v + 4, (c - 4) * sizeof *v);
    return run(c - 1, words);
}

int main(int c, char **v)
{
    return run(c, v);
}

static int run(int c, char **v)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (c < 3) { fprintf(stderr, "usage: see the head of nb.c\n"); return 2; }
    const char *m = v[1];
    if (!strcmp(m, "server")) return server(atoi(v[2]));
    if (!strcmp(m, "local") && c > 4) return l_local(c, v);
    if (!strcmp(m, "unix_tput")) return l_unix_tput(atof(v[2]));
    if (!strcmp(m, "futex_rr")) return l_futex_rr(atof(v[2]));
    if (!strcmp(m, "memcpy")) return l_memcpy(atof(v[2]));
    if (!strcmp(m, "getppid")) return l_getppid(atof(v[2]));
    if (!strcmp(m, "unix_rr") || !strcmp(m, "pipe_rr")) {
        int a[2], b[2];
        if (m[0] == 'u') {
            if (socketpair(AF_UNIX, SOCK_STREAM, 0, a)) die("socketpair");
            return l_fd_rr(m, atof(v[2]), a[0], a[0], a[1], a[1]);
        }
        if (pipe(a) || pipe(b)) die("pipe");
        return l_fd_rr(m, atof(v[2]), b[0], a[1], a[0], b[1]);
    }
    if (c < 4) return 2;
    const char *h = v[2];
    int p = atoi(v[3]);
    double x = c > 4 ? atof(v[4]) : 3;
    double y = c > 5 ? atof(v[5]) : 0;
    if (!strcmp(m, "tcp_rr")) return c_tcp_rr(h, p, x, y ? y : 1);
    if (!strcmp(m, "udp_rr")) return c_udp_rr(h, p, x, y ? y : 1);
    if (!strcmp(m, "udp_dns")) return c_udp_dns(h, p, x, y ? y : 40);
    if (!strcmp(m, "tcp_crr")) return c_tcp_crr(h, p, x, y ? y : 10000);
    if (!strcmp(m, "conns")) return c_conns(h, p, x, y ? y : 1);
    if (!strcmp(m, "hold")) return c_hold(h, p, x);
    if (!strcmp(m, "tx")) return c_bulk(1, h, p, x, y ? y : 1);
    if (!strcmp(m, "rx")) return c_bulk(0, h, p, x, y ? y : 1);
    if (!strcmp(m, "ttfb")) return c_ttfb(h, p);
    fprintf(stderr, "unknown mode %s\n", m);
    return 2;
}
