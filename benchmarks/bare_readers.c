// The least that a streamed token can cost a client on this kernel: wait in epoll, read with the
// instant of arrival, and ask again at an answer's end. As `bare_readers.py`, without Python.
// Usage: bare_readers PORT STREAMS SECONDS < request; prints packets and seconds of CPU time.

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static const char last_chunk[] = "0\r\n\r\n";
static const int end_bytes = sizeof last_chunk - 1;
static char request[4096], data[65536], notes[256];

static double now_s(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec + now.tv_nsec / 1e9;
}

static int connected_to(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    int yes = 1, number = socket(AF_INET, SOCK_STREAM, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(number, (struct sockaddr *)&address, sizeof address)) exit(1);
    setsockopt(number, SOL_SOCKET, SO_TIMESTAMPNS, &yes, sizeof yes);
    return number;
}

int main(int count, char **words) {
    if (count != 4) return 2;
    long packets = 0, request_bytes = read(0, request, sizeof request);
    int poll = epoll_create1(0);
    for (int left = atoi(words[2]); left; left--) {
        struct epoll_event event = {.events = EPOLLIN, .data.fd = connected_to(atoi(words[1]))};
        epoll_ctl(poll, EPOLL_CTL_ADD, event.data.fd, &event);
        send(event.data.fd, request, request_bytes, 0);
    }
    double before_s = now_s(CLOCK_PROCESS_CPUTIME_ID);
    double end_s = now_s(CLOCK_MONOTONIC) + atof(words[3]);
    while (now_s(CLOCK_MONOTONIC) < end_s) {
        struct epoll_event events[64];
        int ready = epoll_wait(poll, events, 64, 100);
        for (int at = 0; at < ready; at++, packets++) {
            struct iovec room = {data, sizeof data};
            struct msghdr message = {.msg_iov = &room, .msg_iovlen = 1, .msg_control = notes,
                                     .msg_controllen = sizeof notes};
            long size = recvmsg(events[at].data.fd, &message, 0);
            if (size <= 0) return 1;
            if (size >= end_bytes && !memcmp(data + size - end_bytes, last_chunk, end_bytes))
                send(events[at].data.fd, request, request_bytes, 0);
        }
    }
    printf("%ld %.6f\n", packets, now_s(CLOCK_PROCESS_CPUTIME_ID) - before_s);
    return 0;
}
