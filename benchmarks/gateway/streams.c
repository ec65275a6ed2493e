/*
 * Many streams at once through a gateway: epoll, one thread.
 *
 *     streams PORT STREAMS CHUNKS RATE WARM SECONDS [KEY]
 *
 * STREAMS connections to 127.0.0.1 ask upstream.c for CHUNKS chunks at RATE a second (0: as fast as they go), again as
 * soon as a stream has ended. Their beginnings are spread over the first stream's time. After WARM seconds it prints
 * "begin", then "half" and "end", so that whoever started it can read the gateway's CPU time and memory at the same
 * moments, then one line of JSON, times in microseconds:
 *
 *   first    from the write of a request to the first byte of its response
 *   chunk    from the write of a chunk in upstream.c to the read that brought its time here
 *   reads    fewer than chunks where some came together
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { READ_SIZE = 1 << 17, HEAD_LIMIT = 16384, STAMP_DIGITS = 19, NO_STAMP = -1 };
enum state { IDLE, HEAD, REFUSED, TO_THE_END, SIZE, DATA, DATA_END, TRAILER };

struct stream {
    int fd;
    enum state state;
    uint64_t starts, asked; /* when it begins; when its request was written */
    int seen;               /* whether a byte of the response is there */
    char head[HEAD_LIMIT + 1];
    size_t head_length;
    char line[64]; /* a line of the chunked coding */
    size_t line_length;
    uint64_t left; /* of this chunk of the coding */
    int close;     /* the connection ends with the response */
    int digits;    /* of a stamp, so far, or NO_STAMP */
    uint64_t stamp;
};

struct samples {
    uint32_t *values;
    size_t count, room;
};

static struct sockaddr_in gateway;
static char request[1024];
static size_t request_length;
static int poller, measuring;
static uint64_t started, finished, chunks, reads, errors;
static struct samples first, chunk;
static char last_error[128] = "";

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void sample(struct samples *s, uint64_t from, uint64_t to) {
    if (s->count == s->room) {
        s->room = s->room ? s->room * 2 : 1 << 16;
        if (!(s->values = realloc(s->values, s->room * sizeof *s->values))) fail("realloc");
    }
    uint64_t ns = to > from ? to - from : 0;
    s->values[s->count++] = ns > UINT32_MAX ? UINT32_MAX : (uint32_t)ns;
}

static void error(const char *what, size_t length) {
    if (measuring) errors++;
    length = strcspn(what, "\r\n\"\\") < length ? strcspn(what, "\r\n\"\\") : length;
    snprintf(last_error, sizeof last_error, "%.*s", (int)length, what);
}

static void connect_to(struct stream *s) {
    int on = 1;
    if ((s->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) < 0) fail("socket");
    if (connect(s->fd, (struct sockaddr *)&gateway, sizeof gateway)) fail("connect");
    setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = s};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, s->fd, &e)) fail("epoll_ctl");
}

static void ask(struct stream *s) {
    s->state = HEAD;
    s->head_length = s->line_length = 0;
    s->seen = s->close = 0;
    s->digits = NO_STAMP;
    s->asked = now();
    if (measuring) started++;
    if (send(s->fd, request, request_length, MSG_NOSIGNAL) != (ssize_t)request_length)
        error("the request was not taken", 64); /* the read that follows sees the end of the connection */
}

static void ask_anew(struct stream *s) {
    close(s->fd);
    connect_to(s);
    ask(s);
}

static void end_stream(struct stream *s) {
    if (measuring) finished++;
    if (s->close) ask_anew(s);
    else ask(s);
}

static void ask_after_error(struct stream *s) {
    usleep(1000); /* a gateway in trouble is not hammered */
    ask_anew(s);
}

/* Finds the stamps of chunks in a piece of the body, which may end within one. */
static void scan(struct stream *s, const char *data, size_t length, uint64_t at) {
    const char *end = data + length;
    while (data < end) {
        if (s->digits == NO_STAMP) {
            if (!(data = memchr(data, '@', (size_t)(end - data)))) return;
            data++;
            s->digits = 0;
            s->stamp = 0;
        }
        for (; data < end && s->digits < STAMP_DIGITS; data++, s->digits++) {
            if (*data < '0' || *data > '9') break;
            s->stamp = s->stamp * 10 + (uint64_t)(*data - '0');
        }
        if (data == end && s->digits < STAMP_DIGITS) return;
        if (s->digits == STAMP_DIGITS && measuring) {
            chunks++;
            sample(&chunk, s->stamp, at);
        }
        s->digits = NO_STAMP;
    }
}

static void start_body(struct stream *s) {
    char *line = s->head, *end;
    s->state = TO_THE_END;
    if (strncmp(line, "HTTP/1.1 200", 12)) {
        error(line, 64);
        s->state = REFUSED;
        return;
    }
    for (; (end = strstr(line, "\r\n")) && end != line; line = end + 2) {
        if (!strncasecmp(line, "transfer-encoding:", 18) && !strncasecmp(end - 7, "chunked", 7)) s->state = SIZE;
        if (!strncasecmp(line, "connection:", 11) && !strncasecmp(line + 11 + strspn(line + 11, " "), "close", 5))
            s->close = 1;
    }
}

static int take_line(struct stream *s, const char **data, const char *end) {
    while (*data < end) {
        char byte = *(*data)++;
        if (byte == '\n') {
            s->line[s->line_length] = 0;
            s->line_length = 0;
            return 1;
        }
        if (byte != '\r' && s->line_length < sizeof s->line - 1) s->line[s->line_length++] = byte;
    }
    return 0;
}

static void feed_head(struct stream *s, const char **data, const char *end) {
    size_t length = (size_t)(end - *data);
    if (length > HEAD_LIMIT - s->head_length) length = HEAD_LIMIT - s->head_length;
    memcpy(s->head + s->head_length, *data, length);
    s->head[s->head_length + length] = 0;
    char *over = strstr(s->head, "\r\n\r\n");
    if (!over && s->head_length + length == HEAD_LIMIT) fail("a head of a response above the limit");
    size_t taken = over ? (size_t)(over + 4 - s->head) - s->head_length : length;
    s->head_length += taken;
    *data += taken;
    if (!over) return;
    s->head[s->head_length] = 0;
    start_body(s);
}

static void feed(struct stream *s, const char *data, size_t length, uint64_t at) {
    const char *end = data + length;
    if (!s->seen) {
        s->seen = 1;
        if (measuring) sample(&first, s->asked, at);
    }
    while (data < end) {
        if (s->state == HEAD) feed_head(s, &data, end);
        else if (s->state == REFUSED) break;
        else if (s->state == TO_THE_END) {
            scan(s, data, (size_t)(end - data), at);
            return;
        } else if (s->state == DATA) {
            size_t taken = (size_t)(end - data) < s->left ? (size_t)(end - data) : (size_t)s->left;
            scan(s, data, taken, at);
            data += taken;
            if (!(s->left -= taken)) s->state = DATA_END;
        } else if (take_line(s, &data, end)) {
            if (s->state == DATA_END) s->state = SIZE;
            else if (s->state == SIZE) {
                s->left = strtoull(s->line, NULL, 16);
                s->state = s->left ? DATA : TRAILER;
            } else if (!s->line[0]) {
                end_stream(s);
                return;
            }
        }
    }
    if (s->state == REFUSED) ask_after_error(s);
}

static void read_some(struct stream *s) {
    static char buffer[READ_SIZE];
    ssize_t length = recv(s->fd, buffer, sizeof buffer, MSG_DONTWAIT);
    if (length < 0 && errno == EAGAIN) return;
    uint64_t at = now();
    if (length > 0) {
        if (measuring) reads++;
        feed(s, buffer, (size_t)length, at);
        return;
    }
    s->close = 1;
    if (s->state == TO_THE_END && s->seen) end_stream(s);
    else {
        error("the connection ended within a response", 64);
        ask_after_error(s);
    }
}

static int by_value(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static void show(const char *name, struct samples *s) {
    qsort(s->values, s->count, sizeof *s->values, by_value);
    double p50 = 0, p99 = 0, most = 0;
    if (s->count) {
        p50 = s->values[s->count / 2] / 1e3;
        p99 = s->values[s->count * 99 / 100] / 1e3;
        most = s->values[s->count - 1] / 1e3;
    }
    printf("\"%s\": {\"count\": %zu, \"p50\": %.1f, \"p99\": %.1f, \"max\": %.1f}, ", name, s->count, p50, p99, most);
}

static void make_request(const char *chunk_count, const char *rate, const char *key) {
    char body[256], authorization[256] = "";
    int length = snprintf(body, sizeof body,
                          "{\"messages\":[{\"role\":\"user\",\"content\":\"Hello\"}],\"model\":\"bench\","
                          "\"stream\":true,\"max_tokens\":%s,\"seed\":%s}",
                          chunk_count, rate);
    if (key) snprintf(authorization, sizeof authorization, "Authorization: Bearer %s\r\n", key);
    request_length = (size_t)snprintf(request, sizeof request,
                                      "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                                      "Content-Type: application/json\r\n%sContent-Length: %d\r\n\r\n%s",
                                      authorization, length, body);
}

/* Runs until `until`, and starts the streams whose time has come. */
static void run(struct stream *streams, int count, int *next, uint64_t until) {
    struct epoll_event events[256];
    for (uint64_t at = now(); at < until; at = now()) {
        while (*next < count && streams[*next].starts <= at) ask(&streams[(*next)++]);
        uint64_t wake = *next < count && streams[*next].starts < until ? streams[*next].starts : until;
        int found = epoll_wait(poller, events, 256, (int)((wake - at) / 1000000u) + 1);
        if (found < 0 && errno != EINTR) fail("epoll_wait");
        for (int n = 0; n < found; n++) read_some(events[n].data.ptr);
    }
}

static void mark(const char *word) {
    puts(word);
    fflush(stdout);
}

int main(int argc, char **argv) {
    if (argc < 7) {
        fprintf(stderr, "streams PORT STREAMS CHUNKS RATE WARM SECONDS [KEY]\n");
        return 64;
    }
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    gateway.sin_family = AF_INET;
    gateway.sin_port = htons((uint16_t)atoi(argv[1]));
    gateway.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int count = atoi(argv[2]), next = 0;
    double rate = atof(argv[4]), spread = rate > 0 ? atof(argv[3]) / rate : 0;
    uint64_t warm = (uint64_t)(atof(argv[5]) * 1e9), window = (uint64_t)(atof(argv[6]) * 1e9);
    make_request(argv[3], argv[4], argc > 7 && *argv[7] ? argv[7] : NULL);
    poller = epoll_create1(EPOLL_CLOEXEC);
    struct stream *streams = calloc((size_t)count, sizeof *streams);
    if (!streams) fail("calloc");
    for (int n = 0; n < count; n++) connect_to(&streams[n]);
    uint64_t begun = now();
    for (int n = 0; n < count; n++) streams[n].starts = begun + (uint64_t)(spread * 1e9 * n / count);
    run(streams, count, &next, begun + warm);
    mark("begin");
    measuring = 1;
    uint64_t from = now();
    run(streams, count, &next, from + window / 2);
    mark("half");
    run(streams, count, &next, from + window);
    double seconds = (double)(now() - from) / 1e9;
    mark("end");
    printf("{\"seconds\": %.6f, \"chunks\": %llu, \"reads\": %llu, \"started\": %llu, \"finished\": %llu, ", seconds,
           (unsigned long long)chunks, (unsigned long long)reads, (unsigned long long)started, (unsigned long long)finished);
    show("first", &first);
    show("chunk", &chunk);
    printf("\"errors\": %llu, \"last_error\": \"%s\"}\n", (unsigned long long)errors, last_error);
}
