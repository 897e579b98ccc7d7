// A group of processes that move bytes to each other through Gloo's TCP transport. One operation at a time, in
// the order in which they were asked for, on a thread of the group; a second thread watches deadlines and peers.
//
// Gloo by itself waits for a dead peer until its timeout if that peer died within a message, aborts the process
// when a message is larger than its buffer, and cannot be told to stop. Hence the sentinel, the header before
// every message, and the watch.
#pragma once

#include <gloo/transport/context.h>
#include <gloo/transport/device.h>
#include <gloo/transport/unbound_buffer.h>

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace paddock {

/// Why an operation failed; an empty code means that it did not. Codes as in src/collectives/group.ts.
struct Failure {
  std::string code;
  std::string message;
  explicit operator bool() const { return !code.empty(); }
};

/// Memory of the caller, who keeps it until the operation is done.
struct Span {
  char* data;
  size_t bytes;
};

/// What goes to and comes from every rank; the own entries are not looked at.
struct Transfer {
  std::string key;
  std::vector<Span> outgoing;
  std::vector<Span> incoming;
};

class Group {
 public:
  using Clock = std::chrono::steady_clock;
  using Milliseconds = std::chrono::milliseconds;
  /// Called on the group's thread, once.
  using Done = std::function<void(const Failure&)>;
  /// An address of this process for each rank: every pair has a socket of its own.
  using Addresses = std::vector<std::vector<char>>;

  Group(int rank, int size, std::string host);
  /// Closes and waits for both threads.
  ~Group();

  int rank() const { return rank_; }
  int size() const { return size_; }

  /// Opens a listening socket per peer; `addresses` is filled when `done` is called.
  void listen(Milliseconds timeout, std::shared_ptr<Addresses> addresses, Done done);
  /// Connects to all peers, given what each of them listens at for this rank.
  void connect(Milliseconds timeout, Addresses peers, Done done);
  /// Sends `outgoing[r]` to every rank r and receives `incoming[r]`. All ranks must ask for the same keys in the
  /// same order, with sizes that agree; what does not is a failure on all of them.
  void exchange(Milliseconds timeout, Transfer transfer, Done done);
  /// Ends the operation under way and all later ones with `reason`, soon. Never waits.
  void close(const std::string& reason);

 private:
  struct Job {
    Milliseconds timeout;
    std::function<void()> work;  // throws
    Done done;
  };
  using Buffers = std::vector<std::unique_ptr<gloo::transport::UnboundBuffer>>;

  void submit(Job job);
  void serve();
  void watch();
  Failure run(Job& job);
  Failure describe(const std::string& what);
  void doListen(Milliseconds timeout, Addresses& addresses);
  void doConnect(const Addresses& peers);
  void doExchange(Transfer& transfer);
  void interrupt();
  void findLostPeer();
  void closePairs();

  const int rank_;
  const int size_;
  const std::string host_;

  // Destroyed last to first: buffers before the context they belong to, that before its device.
  std::shared_ptr<gloo::transport::Device> device_;
  std::shared_ptr<gloo::transport::Context> context_;
  /// Receives that never complete, one per peer: Gloo tells them, at least, when a connection breaks.
  Buffers sentinels_;
  /// A message's header, and its bytes if they are few. The receive for the next one is always posted, so that a small
  /// message takes one way instead of four. By rank; the own entry is empty.
  struct Box {
    std::vector<char> memory;
    std::unique_ptr<gloo::transport::UnboundBuffer> buffer;
  };
  std::vector<Box> inboxes_;
  std::vector<Box> outboxes_;
  uint64_t sequence_ = 0;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Job> jobs_;
  bool busy_ = false;
  bool connecting_ = false;
  Clock::time_point deadline_{};
  /// Of the operation under way; empty between operations.
  Buffers buffers_;
  bool interrupted_ = false;
  bool timedOut_ = false;
  int lostRank_ = -1;
  bool closed_ = false;
  std::string closeReason_;
  /// Sockets and Gloo's thread are gone: a closed group that JS still holds costs nothing.
  bool released_ = false;
  bool ending_ = false;
  /// Set by the first operation that failed: the connections are gone, so all later ones fail as it did.
  Failure broken_;

  std::thread server_;
  std::thread watcher_;
};

}  // namespace paddock
