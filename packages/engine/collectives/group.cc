#include "group.h"

#include <gloo/transport/address.h>
#include <gloo/transport/pair.h>
#include <gloo/transport/tcp/device.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <stdexcept>

namespace paddock {
namespace {

using gloo::transport::UnboundBuffer;

/// How often deadlines and connections are looked at.
constexpr std::chrono::milliseconds kTick(20);
/// Longer than any operation: deadlines are the watch's, a timeout of Gloo's own closes connections under it.
constexpr std::chrono::hours kForever(24 * 365);
constexpr std::chrono::milliseconds kGrace(200);
constexpr uint64_t kSentinelSlot = std::numeric_limits<uint64_t>::max();

/// Messages up to this size travel with their header: a copy of so much costs less than a turn of the network.
constexpr size_t kInline = 128 * 1024;

/// Precedes every message, so that a disagreement is found before it can write past a buffer.
struct Header {
  uint64_t sequence;
  uint64_t sends;
  uint64_t expects;
  char key[104];
};

uint64_t headerSlot(uint64_t sequence) { return 2 * sequence; }
uint64_t messageSlot(uint64_t sequence) { return 2 * sequence + 1; }

/// Peers disagree about what is to be exchanged.
struct Mismatch : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// The watch ended a wait.
struct Interrupted : std::runtime_error {
  Interrupted() : std::runtime_error("interrupted") {}
};

Header headerOf(uint64_t sequence, const std::string& key, uint64_t sends, uint64_t expects) {
  Header header{};
  header.sequence = sequence;
  header.sends = sends;
  header.expects = expects;
  std::strncpy(header.key, key.c_str(), sizeof(header.key) - 1);
  return header;
}

void check(int rank, const Header& mine, Header theirs) {
  theirs.key[sizeof(theirs.key) - 1] = '\0';
  if (theirs.sequence != mine.sequence || std::strcmp(theirs.key, mine.key) != 0) {
    throw Mismatch("expected rank " + std::to_string(rank) + " at operation " + std::to_string(mine.sequence) +
                   " \"" + mine.key + "\", found it at " + std::to_string(theirs.sequence) + " \"" + theirs.key +
                   "\"");
  }
  if (theirs.sends != mine.expects || theirs.expects != mine.sends) {
    throw Mismatch("\"" + std::string(mine.key) + "\": expected " + std::to_string(mine.expects) +
                   " bytes from rank " + std::to_string(rank) + " and to send it " + std::to_string(mine.sends) +
                   ", but it sends " + std::to_string(theirs.sends) + " and expects " +
                   std::to_string(theirs.expects));
  }
}

void waitReceived(UnboundBuffer& buffer) {
  if (!buffer.waitRecv(nullptr, kForever)) throw Interrupted();
}

void waitSent(UnboundBuffer& buffer) {
  if (!buffer.waitSend(nullptr, kForever)) throw Interrupted();
}

}  // namespace

Group::Group(int rank, int size, std::string host) : rank_(rank), size_(size), host_(std::move(host)) {
  server_ = std::thread([this] { serve(); });
  watcher_ = std::thread([this] { watch(); });
}

Group::~Group() {
  close("the group is gone");
  {
    std::lock_guard<std::mutex> lock(mutex_);
    ending_ = true;
    changed_.notify_all();
  }
  server_.join();
  watcher_.join();
}

void Group::listen(Milliseconds timeout, std::shared_ptr<Addresses> addresses, Done done) {
  submit({timeout, [this, timeout, addresses] { doListen(timeout, *addresses); }, std::move(done)});
}

void Group::connect(Milliseconds timeout, Addresses peers, Done done) {
  submit({timeout, [this, peers = std::move(peers)] { doConnect(peers); }, std::move(done)});
}

void Group::exchange(Milliseconds timeout, Transfer transfer, Done done) {
  auto shared = std::make_shared<Transfer>(std::move(transfer));
  submit({timeout, [this, shared] { doExchange(*shared); }, std::move(done)});
}

void Group::close(const std::string& reason) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (!closed_) closeReason_ = reason;
  closed_ = true;
  changed_.notify_all();
}

void Group::submit(Job job) {
  std::lock_guard<std::mutex> lock(mutex_);
  jobs_.push_back(std::move(job));
  changed_.notify_all();
}

/// The group's thread: jobs in order. Ends with the group; a closed one still answers what it is asked.
void Group::serve() {
  for (;;) {
    Job job;
    {
      std::unique_lock<std::mutex> lock(mutex_);
      changed_.wait(lock, [this] { return !jobs_.empty() || ending_ || (closed_ && !released_); });
      if (jobs_.empty()) {
        if (released_) return;  // the group is ending
        if (!broken_) broken_ = {"closed", closeReason_};
        // A soft close, if none came before: what was sent last may still be on its way to the peers.
        sentinels_.clear();
        inboxes_.clear();
        outboxes_.clear();
        context_.reset();
        device_.reset();
        released_ = true;
        continue;
      }
      job = std::move(jobs_.front());
      jobs_.pop_front();
    }
    job.done(run(job));
  }
}

Failure Group::run(Job& job) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!broken_ && closed_) broken_ = {"closed", closeReason_};
    if (!broken_) {
      deadline_ = Clock::now() + job.timeout;
      busy_ = true;
    }
  }
  Failure failure = broken_;
  if (!failure) {
    try {
      job.work();
    } catch (const Mismatch& mismatch) {
      failure = {"mismatch", mismatch.what()};
      // Closing resets the connection, which may overtake the header by which the peer would see the same.
      std::this_thread::sleep_for(kGrace);
    } catch (const Interrupted&) {
      failure = describe("in the middle of a message");
    } catch (const std::exception& error) {
      failure = describe(error.what());
    }
  }
  // The connections first: Gloo spins on a message whose buffer has gone while its connection lives.
  if (failure) closePairs();
  Buffers finished;
  std::lock_guard<std::mutex> lock(mutex_);
  finished.swap(buffers_);
  busy_ = false;
  connecting_ = false;
  if (failure) broken_ = failure;
  return failure;
}

/// Gloo's exception, or the watch's reason if that came first.
Failure Group::describe(const std::string& what) {
  std::unique_lock<std::mutex> lock(mutex_);
  if (closed_) return {"closed", closeReason_};
  if (timedOut_) return {"timeout", "a peer did not come in time"};
  lock.unlock();
  findLostPeer();
  lock.lock();
  const std::string who = lostRank_ < 0 ? "a peer" : "rank " + std::to_string(lostRank_);
  return {"peer-lost", "the connection to " + who + " broke (" + what + ")"};
}

/// The watch's thread: ends waits whose deadline is over, whose group was closed, or whose peer is gone.
void Group::watch() {
  std::unique_lock<std::mutex> lock(mutex_);
  while (!ending_) {
    changed_.wait_for(lock, kTick);
    if (!busy_ || interrupted_) continue;
    if (!closed_ && Clock::now() < deadline_) {
      lock.unlock();
      findLostPeer();
      lock.lock();
    }
    if (!busy_ || interrupted_) continue;
    timedOut_ = !closed_ && Clock::now() >= deadline_;
    if (closed_ || timedOut_ || lostRank_ >= 0) interrupt();
  }
}

/// Wakes the group's thread wherever it waits; `mutex_` is held.
void Group::interrupt() {
  interrupted_ = true;
  const auto abort = [](UnboundBuffer& buffer) {
    buffer.abortWaitRecv();
    buffer.abortWaitSend();
  };
  for (auto& buffer : buffers_) abort(*buffer);
  for (auto* boxes : {&inboxes_, &outboxes_}) {
    for (Box& box : *boxes) {
      if (box.buffer) abort(*box.buffer);
    }
  }
  if (connecting_) {
    for (int peer = 0; peer < size_; peer++) {
      if (peer != rank_ && context_->getPair(peer)) context_->getPair(peer)->close();
    }
  }
}

/// Notes the first rank whose connection is broken. A wait that was told to abort returns at once: it only looks.
void Group::findLostPeer() {
  std::lock_guard<std::mutex> lock(mutex_);
  for (size_t i = 0; i < sentinels_.size() && lostRank_ < 0; i++) {
    try {
      sentinels_[i]->abortWaitRecv();
      sentinels_[i]->waitRecv(nullptr, kForever);
    } catch (const std::exception&) {
      lostRank_ = static_cast<int>(i) < rank_ ? static_cast<int>(i) : static_cast<int>(i) + 1;
    }
  }
}

void Group::closePairs() {
  if (!context_) return;
  for (int peer = 0; peer < size_; peer++) {
    if (peer != rank_ && context_->getPair(peer)) context_->getPair(peer)->close();
  }
}

void Group::doListen(Milliseconds timeout, Addresses& addresses) {
  device_ = gloo::transport::tcp::CreateDevice(gloo::transport::tcp::attr(host_.c_str()));
  auto context = device_->createContext(rank_, size_);
  context->setTimeout(timeout);
  addresses.resize(size_);
  for (int peer = 0; peer < size_; peer++) {
    if (peer != rank_) addresses[peer] = context->createPair(peer)->address().bytes();
  }
  std::lock_guard<std::mutex> lock(mutex_);
  context_ = std::move(context);
}

void Group::doConnect(const Addresses& peers) {
  if (!context_) throw std::runtime_error("a group listens before it connects");
  {
    std::lock_guard<std::mutex> lock(mutex_);
    connecting_ = true;
  }
  const auto throwIfInterrupted = [this] {
    std::lock_guard<std::mutex> lock(mutex_);
    if (interrupted_) throw Interrupted();
  };
  for (int peer = 0; peer < size_; peer++) {
    if (peer == rank_) continue;
    throwIfInterrupted();
    context_->getPair(peer)->connect(peers[peer]);
  }
  throwIfInterrupted();
  Buffers sentinels;
  std::vector<Box> inboxes(size_), outboxes(size_);
  for (int peer = 0; peer < size_; peer++) {
    if (peer == rank_) continue;
    sentinels.push_back(context_->createUnboundBuffer(nullptr, 0));
    sentinels.back()->recv(peer, kSentinelSlot);
    for (Box* box : {&inboxes[peer], &outboxes[peer]}) {
      box->memory.resize(sizeof(Header) + kInline);
      box->buffer = context_->createUnboundBuffer(box->memory.data(), box->memory.size());
    }
    inboxes[peer].buffer->recv(peer, headerSlot(1));
  }
  std::lock_guard<std::mutex> lock(mutex_);
  sentinels_ = std::move(sentinels);
  inboxes_ = std::move(inboxes);
  outboxes_ = std::move(outboxes);
}

void Group::doExchange(Transfer& transfer) {
  if (sentinels_.size() + 1 != static_cast<size_t>(size_)) throw std::runtime_error("the group is not connected");
  const uint64_t sequence = ++sequence_;
  std::vector<UnboundBuffer*> out(size_), in(size_);
  Buffers buffers;
  // The messages that do not travel with their headers.
  const auto bufferOf = [&](const Span& span) -> UnboundBuffer* {
    if (span.bytes <= kInline) return nullptr;
    buffers.push_back(context_->createUnboundBuffer(span.data, span.bytes));
    return buffers.back().get();
  };
  // Each rank begins with its next one, so that not all send to the same.
  const auto forPeers = [&](const auto& body) {
    for (int i = 1; i < size_; i++) body((rank_ + i) % size_);
  };
  forPeers([&](int peer) {
    out[peer] = bufferOf(transfer.outgoing[peer]);
    in[peer] = bufferOf(transfer.incoming[peer]);
  });
  {
    // From here on the watch can end the waits.
    std::lock_guard<std::mutex> lock(mutex_);
    buffers_ = std::move(buffers);
    if (interrupted_) throw Interrupted();
  }
  forPeers([&](int peer) {
    const Span& message = transfer.outgoing[peer];
    Box& outbox = outboxes_[peer];
    const Header header = headerOf(sequence, transfer.key, message.bytes, transfer.incoming[peer].bytes);
    std::memcpy(outbox.memory.data(), &header, sizeof(header));
    const size_t inlined = out[peer] ? 0 : message.bytes;
    if (inlined > 0) std::memcpy(outbox.memory.data() + sizeof(header), message.data, inlined);
    outbox.buffer->send(peer, headerSlot(sequence), 0, sizeof(header) + inlined);
    // Gloo sends it when the peer is ready to receive it, and the peer is when it has seen the header.
    if (out[peer]) out[peer]->send(peer, messageSlot(sequence));
  });
  forPeers([&](int peer) {
    const Span& message = transfer.incoming[peer];
    Box& inbox = inboxes_[peer];
    waitReceived(*inbox.buffer);
    Header header;
    std::memcpy(&header, inbox.memory.data(), sizeof(header));
    const uint64_t sends = transfer.outgoing[peer].bytes;
    check(peer, headerOf(sequence, transfer.key, sends, message.bytes), header);
    if (in[peer]) {
      in[peer]->recv(peer, messageSlot(sequence));
    } else if (message.bytes > 0) {
      std::memcpy(message.data, inbox.memory.data() + sizeof(header), message.bytes);
    }
    inbox.buffer->recv(peer, headerSlot(sequence + 1));
  });
  forPeers([&](int peer) {
    if (in[peer]) waitReceived(*in[peer]);
    waitSent(*outboxes_[peer].buffer);
    if (out[peer]) waitSent(*out[peer]);
  });
}

}  // namespace paddock
