/*
 * An engine for the gateway's benchmark: HTTP/1.1 over epoll, one thread, answers that cost it nothing.
 *
 *     upstream [PORT]            prints "listening PORT"; port 0 (the default) takes a free one
 *
 * POST (any path)              a chat completion of 600 bytes once the whole body is there
 *   with "stream":true         max_tokens chunks of about 200 bytes, seed chunks a second (0: as fast as they go), one
 *                              write each, then the usage and [DONE]. Gateways pass these two fields on (one renames
 *                              max_tokens to max_completion_tokens). They are looked for in the first 4 KiB of the
 *                              body. A chunk carries the time of its write: "@" and the nanoseconds of CLOCK_MONOTONIC
 *                              in 19 digits.
 * GET /v1/models, /health, …   what routers ask a worker before they believe in it
 *
 * No TLS, no pipelining beyond one request after the other, no answer to Expect.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { HEAD_LIMIT = 65536, BODY_KEPT = 4096, READ_SIZE = 1 << 18, ANSWER_SIZE = 600, PADDING = 32 };
enum state { HEAD, LENGTH_BODY, CHUNK_SIZE, CHUNK_DATA, CHUNK_END, TRAILER, STREAMING };

struct connection {
    int fd;
    enum state state;
    int dead, blocked, keep_alive, is_get, chunked;
    char *head; /* the request's head as far as it has come */
    size_t head_length, head_room;
    char path[128];
    char body[BODY_KEPT + 1]; /* the beginning of the body */
    size_t body_kept;
    uint64_t body_left; /* of the body, or of this chunk of it */
    char line[64];      /* a line of the chunked coding */
    size_t line_length;
    char *late; /* input that came while a stream was written */
    size_t late_length;
    char *out; /* what the socket did not take */
    size_t out_length, out_sent;
    uint64_t chunks_left, chunks_sent, interval, due; /* interval 0: as fast as they go */
    long flood_at, timer_at;                          /* places in the two lists below, or -1 */
};

static int poller, timer;
static char answer[2048];
static size_t answer_length;
static struct connection **flood; /* streams that go as fast as they can */
static long flooding, flood_room;
static struct connection **heap; /* streams with a pace, the next one due first */
static long heaped, heap_room;
static struct connection **graveyard; /* freed after the events of this round */
static long buried, graveyard_room;

static void feed(struct connection *c, const char *data, size_t length);

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void *grown(void *list, long *room, long used, size_t item) {
    if (used < *room) return list;
    *room = *room ? *room * 2 : 1024;
    if (!(list = realloc(list, (size_t)*room * item))) fail("realloc");
    return list;
}

static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* --- the heap of paced streams --- */

static void heap_put(long at, struct connection *c) {
    heap[at] = c;
    c->timer_at = at;
}

static void heap_settle(long at) {
    struct connection *c = heap[at];
    for (long up = (at - 1) / 2; at > 0 && heap[up]->due > c->due; at = up, up = (at - 1) / 2) heap_put(at, heap[up]);
    for (;;) {
        long down = 2 * at + 1;
        if (down + 1 < heaped && heap[down + 1]->due < heap[down]->due) down++;
        if (down >= heaped || heap[down]->due >= c->due) break;
        heap_put(at, heap[down]);
        at = down;
    }
    heap_put(at, c);
}

static void heap_add(struct connection *c) {
    heap = grown(heap, &heap_room, heaped, sizeof *heap);
    heap_put(heaped++, c);
    heap_settle(c->timer_at);
}

static void heap_remove(struct connection *c) {
    long at = c->timer_at;
    if (at < 0) return;
    c->timer_at = -1;
    if (at == --heaped) return;
    heap_put(at, heap[heaped]);
    heap_settle(at);
}

static void flood_add(struct connection *c) {
    flood = grown(flood, &flood_room, flooding, sizeof *flood);
    c->flood_at = flooding;
    flood[flooding++] = c;
}

static void flood_remove(struct connection *c) {
    if (c->flood_at < 0) return;
    flood[c->flood_at] = flood[--flooding];
    flood[c->flood_at]->flood_at = c->flood_at;
    c->flood_at = -1;
}

/* --- writing --- */

static void bury(struct connection *c) {
    if (c->dead) return;
    c->dead = 1;
    heap_remove(c);
    flood_remove(c);
    close(c->fd);
    graveyard = grown(graveyard, &graveyard_room, buried, sizeof *graveyard);
    graveyard[buried++] = c;
}

static void watch_for_room(struct connection *c, int wanted) {
    if (c->blocked == wanted) return;
    c->blocked = wanted;
    struct epoll_event e = {.events = EPOLLIN | EPOLLRDHUP | (wanted ? EPOLLOUT : 0), .data.ptr = c};
    epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &e);
}

static void put(struct connection *c, const char *data, size_t length) {
    if (c->dead) return;
    if (!c->out_length) {
        ssize_t took = send(c->fd, data, length, MSG_NOSIGNAL);
        if (took < 0 && errno != EAGAIN) {
            bury(c);
            return;
        }
        if (took > 0) {
            data += took;
            length -= (size_t)took;
        }
        if (!length) return;
    }
    if (!(c->out = realloc(c->out, c->out_length + length))) fail("realloc");
    memcpy(c->out + c->out_length, data, length);
    c->out_length += length;
    watch_for_room(c, 1);
}

static void put_rest(struct connection *c) {
    while (c->out_sent < c->out_length) {
        ssize_t took = send(c->fd, c->out + c->out_sent, c->out_length - c->out_sent, MSG_NOSIGNAL);
        if (took < 0) {
            if (errno != EAGAIN) bury(c);
            return;
        }
        c->out_sent += (size_t)took;
    }
    c->out_length = c->out_sent = 0;
    watch_for_room(c, 0);
}

static void put_json(struct connection *c, const char *format, ...) {
    char body[1024], whole[1536];
    va_list args;
    va_start(args, format);
    int length = vsnprintf(body, sizeof body, format, args);
    va_end(args);
    int all = snprintf(whole, sizeof whole,
                       "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", length,
                       body);
    put(c, whole, (size_t)all);
}

/* --- streams --- */

static void end_message(struct connection *c) {
    c->state = HEAD;
    c->head_length = c->body_kept = c->line_length = 0;
    if (!c->keep_alive) {
        if (!c->dead) shutdown(c->fd, SHUT_WR); /* the rest goes when the other side closes too */
        return;
    }
    if (c->late_length && !c->dead) {
        char *late = c->late;
        size_t length = c->late_length;
        c->late = NULL;
        c->late_length = 0;
        feed(c, late, length);
        free(late);
    }
}

static void put_event(struct connection *c, const char *before, const char *after, const char *format, ...) {
    char event[512], whole[1024];
    va_list args;
    va_start(args, format);
    int length = vsnprintf(event, sizeof event, format, args);
    va_end(args);
    int all = snprintf(whole, sizeof whole, "%s%x\r\n%s\r\n%s", before, (unsigned)length, event, after);
    put(c, whole, (size_t)all);
}

static void next_chunk(struct connection *c) {
    static const char head[] =
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nCache-Control: no-cache\r\n"
        "Transfer-Encoding: chunked\r\n\r\n";
    if (c->chunks_left) {
        c->chunks_left--;
        put_event(c, c->chunks_sent++ ? "" : head, "",
                  "data: {\"id\":\"chatcmpl-0\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,"
                  "\"model\":\"bench\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"@%019llu%*s\"},"
                  "\"finish_reason\":null}]}\n\n",
                  (unsigned long long)now(), PADDING, "");
        if (c->interval && !c->dead) {
            c->due += c->interval;
            heap_settle(c->timer_at);
        }
        return;
    }
    heap_remove(c);
    flood_remove(c);
    put_event(c, c->chunks_sent ? "" : head, "0\r\n\r\n",
              "data: {\"id\":\"chatcmpl-0\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,"
              "\"model\":\"bench\",\"choices\":[],\"usage\":{\"prompt_tokens\":8,\"completion_tokens\":%llu,"
              "\"total_tokens\":%llu}}\n\ndata: [DONE]\n\n",
              (unsigned long long)c->chunks_sent, (unsigned long long)c->chunks_sent + 8);
    end_message(c);
}

static const char *field(struct connection *c, const char *name) {
    const char *at = strstr(c->body, name);
    if (!at) return NULL;
    at += strlen(name);
    return at + strspn(at, " :");
}

static uint64_t number(struct connection *c, const char *name, uint64_t otherwise) {
    const char *at = field(c, name);
    return at ? strtoull(at, NULL, 10) : otherwise;
}

static void respond(struct connection *c) {
    c->body[c->body_kept] = 0;
    const char *stream = c->is_get ? NULL : field(c, "\"stream\"");
    if (stream && !strncmp(stream, "true", 4)) {
        uint64_t rate = number(c, "\"seed\"", 0);
        c->state = STREAMING;
        c->chunks_left = number(c, "\"max_tokens\"", number(c, "\"max_completion_tokens\"", 100));
        c->chunks_sent = 0;
        c->interval = rate ? 1000000000u / rate : 0;
        c->due = now();
        if (rate) heap_add(c);
        else flood_add(c);
        next_chunk(c);
        return;
    }
    if (!c->is_get) put(c, answer, answer_length);
    else if (!strncmp(c->path, "/v1/models", 10))
        put_json(c, "{\"object\":\"list\",\"data\":[{\"id\":\"bench\",\"object\":\"model\",\"created\":1700000000,"
                    "\"owned_by\":\"bench\",\"root\":\"bench\",\"parent\":null,\"max_model_len\":131072}]}");
    else if (strstr(c->path, "model_info"))
        put_json(c, "{\"model_path\":\"bench\",\"tokenizer_path\":\"bench\",\"served_model_name\":\"bench\","
                    "\"is_generation\":true}");
    else if (strstr(c->path, "server_info"))
        put_json(c, "{\"model_path\":\"bench\",\"model_id\":\"bench\",\"served_model_name\":\"bench\",\"dp_size\":1,"
                    "\"tp_size\":1,\"version\":\"0\"}");
    else put_json(c, "{\"status\":\"ok\"}");
    end_message(c);
}

/* --- reading --- */

static void start_body(struct connection *c) {
    char *line = c->head, *end = strstr(line, "\r\n");
    c->is_get = !strncmp(line, "GET ", 4) || !strncmp(line, "HEAD ", 5);
    c->keep_alive = !memmem(line, (size_t)(end - line), "HTTP/1.0", 8);
    c->chunked = 0;
    c->body_left = 0;
    c->path[0] = 0;
    sscanf(line, "%*s %127s", c->path);
    for (line = end + 2; (end = strstr(line, "\r\n")) && end != line; line = end + 2) {
        if (!strncasecmp(line, "content-length:", 15)) c->body_left = strtoull(line + 15, NULL, 10);
        else if (!strncasecmp(line, "transfer-encoding:", 18)) c->chunked = 1;
        else if (!strncasecmp(line, "connection:", 11)) {
            char *value = line + 11 + strspn(line + 11, " ");
            if (!strncasecmp(value, "close", 5)) c->keep_alive = 0;
        }
    }
    c->state = c->chunked ? CHUNK_SIZE : LENGTH_BODY;
}

static void keep(struct connection *c, const char *data, size_t length) {
    size_t more = BODY_KEPT - c->body_kept;
    if (more > length) more = length;
    memcpy(c->body + c->body_kept, data, more);
    c->body_kept += more;
}

/* Takes bytes up to the end of the head; how many it took. */
static size_t feed_head(struct connection *c, const char *data, size_t length) {
    size_t before = c->head_length;
    if (before + length + 1 > c->head_room) {
        c->head_room = before + length + 1;
        if (c->head_room > HEAD_LIMIT + READ_SIZE || !(c->head = realloc(c->head, c->head_room))) {
            bury(c);
            return length;
        }
    }
    memcpy(c->head + before, data, length);
    size_t from = before < 3 ? 0 : before - 3;
    char *end = memmem(c->head + from, before + length - from, "\r\n\r\n", 4);
    if (!end) {
        c->head_length = before + length;
        if (c->head_length > HEAD_LIMIT) bury(c);
        return length;
    }
    c->head_length = (size_t)(end - c->head) + 4;
    c->head[c->head_length] = 0;
    start_body(c);
    return c->head_length - before;
}

/* Takes bytes up to the end of a line of the chunked coding; whether the line is whole. */
static int feed_line(struct connection *c, const char **data, size_t *length) {
    while (*length) {
        char byte = **data;
        ++*data;
        --*length;
        if (byte == '\n') {
            c->line[c->line_length] = 0;
            c->line_length = 0;
            return 1;
        }
        if (byte != '\r' && c->line_length < sizeof c->line - 1) c->line[c->line_length++] = byte;
    }
    return 0;
}

static void keep_late(struct connection *c, const char *data, size_t length) {
    if (!(c->late = realloc(c->late, c->late_length + length))) fail("realloc");
    memcpy(c->late + c->late_length, data, length);
    c->late_length += length;
}

static void feed(struct connection *c, const char *data, size_t length) {
    while (!c->dead) {
        if (c->state == LENGTH_BODY && !c->body_left) {
            respond(c);
            continue;
        }
        if (!length) return;
        if (c->state == HEAD) {
            size_t took = feed_head(c, data, length);
            data += took;
            length -= took;
        } else if (c->state == LENGTH_BODY || c->state == CHUNK_DATA) {
            size_t took = length < c->body_left ? length : (size_t)c->body_left;
            keep(c, data, took);
            data += took;
            length -= took;
            c->body_left -= took;
            if (c->state == CHUNK_DATA && !c->body_left) c->state = CHUNK_END;
        } else if (c->state == STREAMING) {
            keep_late(c, data, length);
            return;
        } else if (feed_line(c, &data, &length)) {
            if (c->state == CHUNK_END) c->state = CHUNK_SIZE;
            else if (c->state == CHUNK_SIZE) {
                c->body_left = strtoull(c->line, NULL, 16);
                c->state = c->body_left ? CHUNK_DATA : TRAILER;
            } else if (!c->line[0]) respond(c); /* the empty line after the trailers */
        }
    }
}

static void read_some(struct connection *c) {
    static char buffer[READ_SIZE];
    ssize_t length = recv(c->fd, buffer, sizeof buffer, 0);
    if (length > 0) feed(c, buffer, (size_t)length);
    else if (length == 0 || errno != EAGAIN) bury(c);
}

/* --- the loop --- */

static void accept_all(int listener) {
    int fd, on = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        struct connection *c = calloc(1, sizeof *c);
        if (!c) fail("calloc");
        c->fd = fd;
        c->flood_at = c->timer_at = -1;
        struct epoll_event e = {.events = EPOLLIN | EPOLLRDHUP, .data.ptr = c};
        if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &e)) fail("epoll_ctl");
    }
    if (errno != EAGAIN && errno != EMFILE && errno != ECONNABORTED) fail("accept");
}

static void set_timer(void) {
    static uint64_t set_to;
    uint64_t due = heaped ? heap[0]->due : 0;
    if (due == set_to) return;
    set_to = due;
    struct itimerspec at = {.it_value = {(time_t)(due / 1000000000u), (long)(due % 1000000000u)}};
    timerfd_settime(timer, TFD_TIMER_ABSTIME, &at, NULL);
}

static void run_due(void) {
    uint64_t expired;
    if (read(timer, &expired, sizeof expired) < 0 && errno != EAGAIN) fail("timerfd");
    while (heaped && heap[0]->due <= now()) next_chunk(heap[0]);
}

static void run_flood(void) {
    for (long at = flooding - 1; at >= 0; at--) { /* backwards: a stream that ends is replaced by the last one */
        if (at < flooding && !flood[at]->out_length) next_chunk(flood[at]);
    }
}

static int flood_can_go(void) {
    for (long at = 0; at < flooding; at++)
        if (!flood[at]->out_length) return 1;
    return 0;
}

static int listen_on(int port) {
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    socklen_t size = sizeof here;
    here.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&here, sizeof here) || listen(listener, 4096)) fail("bind");
    getsockname(listener, (struct sockaddr *)&here, &size);
    printf("listening %d\n", ntohs(here.sin_port));
    fflush(stdout);
    return listener;
}

static void make_answer(void) {
    static const char before[] =
        "{\"id\":\"chatcmpl-0\",\"object\":\"chat.completion\",\"created\":1700000000,\"model\":\"bench\",\"choices\":[{"
        "\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"";
    static const char after[] = "\"},\"logprobs\":null,\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":8,"
                                "\"completion_tokens\":64,\"total_tokens\":72}}";
    char text[ANSWER_SIZE];
    size_t length = ANSWER_SIZE - strlen(before) - strlen(after);
    for (size_t at = 0; at < length; at++) text[at] = "the quick brown fox "[at % 20];
    answer_length = (size_t)snprintf(answer, sizeof answer,
                                     "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: "
                                     "%d\r\n\r\n%s%.*s%s",
                                     ANSWER_SIZE, before, (int)length, text, after);
}

int main(int argc, char **argv) {
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    make_answer();
    int listener = listen_on(argc > 1 ? atoi(argv[1]) : 0);
    poller = epoll_create1(EPOLL_CLOEXEC);
    timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = &listener}, events[512];
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &e);
    e.data.ptr = &timer;
    epoll_ctl(poller, EPOLL_CTL_ADD, timer, &e);
    for (;;) {
        set_timer();
        int count = epoll_wait(poller, events, 512, flood_can_go() ? 0 : -1);
        if (count < 0 && errno != EINTR) fail("epoll_wait");
        for (int at = 0; at < count; at++) {
            struct connection *c = events[at].data.ptr;
            if ((void *)c == &listener) accept_all(listener);
            else if ((void *)c == &timer) run_due();
            else {
                if (events[at].events & EPOLLOUT && !c->dead) put_rest(c);
                if (events[at].events & ~(unsigned)EPOLLOUT && !c->dead) read_some(c);
            }
        }
        run_flood();
        while (buried) {
            struct connection *c = graveyard[--buried];
            free(c->head);
            free(c->late);
            free(c->out);
            free(c);
        }
    }
}
