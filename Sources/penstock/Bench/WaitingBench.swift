// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import Foundation
import Penstock
import PenstockSystem
import Synchronization

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// `penstock bench waiting`: what long polls cost while they wait, and how soon a send wakes one.
struct WaitingBench: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "waiting",
    abstract: "Measure long polls: processor time while they wait, and the time to wake one.",
    discussion: """
      Each row is a store, or a server, with so many polls that wait. Nothing is sent for some \
      seconds; then single messages are, in turns with one that has a single poll, and the time \
      from the answer of the send, which follows its sync, to that of the poll is taken. Each \
      send must wake one poll and no more.
      """)

  @Option(name: .long, help: "Directory to work in; a new one inside it is used and removed.")
  var directory = "."

  @Option(name: .long, help: "Polls that wait.")
  var polls = 10_000

  @Option(name: .long, help: "Seconds in which nothing is sent.")
  var seconds = 5.0

  @Option(name: .long, help: "Sends of each row.")
  var sends = 500

  @Option(name: .long, help: "What to measure: process, http or all.")
  var over = Selection.all

  enum Selection: String, ExpressibleByArgument, CaseIterable { case process, http, all }

  func validate() throws {
    guard (1...50_000).contains(polls) else {
      throw ValidationError("--polls must be from 1 to 50000.")
    }
    guard seconds >= 0.1, seconds <= 10 else {
      throw ValidationError("--seconds must be from 0.1 to 10.")
    }
    guard (1...2000).contains(sends) else {
      throw ValidationError("--sends must be from 1 to 2000.")
    }
  }

  func run() async throws {
    let root = "\(directory)/penstock-bench-\(SystemRandom().next())"
    try PosixFileSystem().createDirectory(root)
    defer { removeTree(root) }
    print("machine     \(Machine.description)")
    print("durability  synced; \(sends) sends of each row, one at a time")
    print("")
    print(
      pad("polls", 36) + lead("idle ms/s", 10) + lead("woken", 7) + lead("p50 us", 9)
        + lead("p99 us", 9) + lead("send p50", 10) + lead("one: p50", 10) + lead("p99", 9)
        + lead("device p50", 12) + lead("p99", 9) + lead("KiB each", 10))
    for queues in [polls, 1] {
      if over != .http {
        let (one, all) = ("\(root)/one", "\(root)/all")
        try await row(
          "in process", queues, LocalPolls(1, 1, one), LocalPolls(polls, queues, all), root)
      }
      if over != .process {
        try Self.needFiles(polls + 64)
        let (one, all) = ("\(root)/one", "\(root)/all")
        try await row(
          "HTTP", queues, ServedPolls(1, 1, one), ServedPolls(polls, queues, all), root)
      }
    }
    print("")
    print(
      """
      "idle ms/s" is processor time, of all threads, per second in which nothing is sent; over
      HTTP the server's. "p50" and "p99" are from the answer of the send to the answer of the poll
      that it woke; "one" is the same where only one waits. "send p50" is from the send to its
      answer. "device" is one write of 4096 bytes and its sync, in turns with the rest. "KiB each"
      is resident memory per poll.
      """)
  }

  private func row(
    _ name: String, _ queues: Int, _ one: some WaitingPolls, _ all: some WaitingPolls,
    _ root: String
  ) async throws {
    // Whatever happens, no server is left behind.
    defer {
      one.end()
      all.end()
      removeTree("\(root)/one")
      removeTree("\(root)/all")
    }
    let before = all.residentBytes
    try await all.begin()
    let resident = all.residentBytes - before
    try await one.begin()
    // The heartbeat of the log, and what was begun before, end meanwhile.
    await RealClock().sleep(.milliseconds(500))
    let (began, used) = (RealClock().monotonicNanoseconds(), all.processorNanoseconds)
    await RealClock().sleep(.seconds(seconds))
    let idle = Double(all.processorNanoseconds - used)
    let passed = Double(RealClock().monotonicNanoseconds() - began)

    var (ofOne, ofAll) = (WakeTimes(), WakeTimes())
    var synced = Measurement(elapsed: 0)
    let probe = try DeviceProbe(root, size: 1 << 20)
    let part = 25
    for start in stride(from: 0, to: sends, by: part) {
      let range = start..<min(start + part, sends)
      for _ in range { try one.wake(0, &ofOne) }
      synced = synced.joined(try probe.measure(block: 4096, seconds: 0.01))
      for send in range { try all.wake(send * 7919 % queues, &ofAll) }
    }
    try probe.close()
    guard try await all.woken() == sends, try await one.woken() == sends else {
      throw ValidationError("a send woke none or several.")
    }
    print(
      pad("\(name), \(polls) on \(queues) \(queues == 1 ? "queue" : "queues")", 36)
        + lead(hundredths(1000 * idle / passed), 10) + lead("\(sends)", 7)
        + lead(whole(ofAll.woken.median), 9) + lead(whole(ofAll.woken.at(0.99)), 9)
        + lead(whole(ofAll.sent.median), 10) + lead(whole(ofOne.woken.median), 10)
        + lead(whole(ofOne.woken.at(0.99)), 9) + lead(whole(synced.percentile(0.5)), 12)
        + lead(whole(synced.percentile(0.99)), 9)
        + lead(tenths(resident / 1024 / Double(polls)), 10))
  }

  /// Raises the limit of open files as far as it goes.
  private static func needFiles(_ count: Int) throws {
    let most = Serve.raiseFileLimit()
    guard most >= count else {
      throw ValidationError(
        "the limit of open files is \(most); \(count) are needed: raise it (ulimit -Hn), or give "
          + "fewer --polls.")
    }
  }
}

/// Microseconds of many sends: until their answer, and from there until that of the poll.
struct WakeTimes {
  private var sends: [Double] = []
  private var wakes: [Double] = []

  var sent: Spread { Spread(sends) }
  var woken: Spread { Spread(wakes) }

  /// From three times in nanoseconds. A poll may be answered before the send is.
  mutating func add(_ began: UInt64, _ answered: UInt64, _ received: UInt64) {
    sends.append(Double(answered - began) / 1000)
    wakes.append((Double(received) - Double(answered)) / 1000)
  }
}

/// Long polls that wait on some queues, and sends to those.
protocol WaitingPolls {
  /// Bytes of the process that keeps them.
  var residentBytes: Double { get }
  /// Of the same process, since its start.
  var processorNanoseconds: UInt64 { get }
  /// Lets all of them wait.
  func begin() async throws
  /// Sends a message, waits for its answer and that of the poll it wakes, deletes the message, and
  /// lets the poll wait again.
  func wake(_ queue: Int, _ times: inout WakeTimes) throws
  /// How many polls were answered. All others must wait still.
  func woken() async throws -> Int
  func end()
}

/// What the measuring thread waits for: the answers of one send.
final class WakeRecord: Sendable {
  /// A poll that was answered with a message, by its number, and the message's receipt.
  struct Woken: Sendable {
    var poll: Int
    var handle: String
    var at: UInt64
  }

  private struct State {
    var answeredAt: UInt64?
    var woken: [Woken] = []
    var count = 0
    var problem: String?
  }

  private let state = Mutex(State())
  private let bell = Doorbell()

  /// Polls that were answered, ever.
  var count: Int { state.withLock { $0.count } }

  /// Takes one of the answers, with a problem or without.
  func add(_ problem: String?, _ woken: Woken? = nil) {
    let now = RealClock().monotonicNanoseconds()
    state.withLock { state in
      if let problem { state.problem = problem }
      if var woken {
        woken.at = now
        state.woken.append(woken)
        state.count += 1
      } else {
        state.answeredAt = now
      }
    }
    bell.ring()
  }

  /// Waits until both are there, the send's and a poll's.
  func wait() throws -> (answeredAt: UInt64, woken: Woken) {
    while true {
      let both = try state.withLock { state -> (UInt64, Woken)? in
        if let problem = state.problem { throw ValidationError(problem) }
        guard let answered = state.answeredAt, let woken = state.woken.first else { return nil }
        state.answeredAt = nil
        state.woken.removeFirst()
        return (answered, woken)
      }
      if let both { return both }
      guard bell.wait(nanoseconds: 30_000_000_000) else {
        throw ValidationError("a send woke nobody.")
      }
    }
  }

  /// Waits for the answer of something that wakes nobody.
  func waitForAnswer() throws {
    while true {
      let isThere = try state.withLock { state -> Bool in
        if let problem = state.problem { throw ValidationError(problem) }
        defer { state.answeredAt = nil }
        return state.answeredAt != nil
      }
      if isThere { return }
      guard bell.wait(nanoseconds: 30_000_000_000) else {
        throw ValidationError("no answer came.")
      }
    }
  }
}

/// Polls of this process.
final class LocalPolls: WaitingPolls {
  private let polls: Int
  private let queueCount: Int
  private let path: String
  private let record = WakeRecord()
  private var store: Store?
  private var queues: [Queue] = []

  init(_ polls: Int, _ queues: Int, _ path: String) {
    (self.polls, queueCount, self.path) = (polls, queues, path)
  }

  var residentBytes: Double {
    MemoryStep.giveBackFreeMemory()
    return BacklogStep.residentMebibytes() * 1_048_576
  }

  var processorNanoseconds: UInt64 {
    var time = timespec()
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time)
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
  }

  func begin() async throws {
    let store = try await Store.open(at: path)
    self.store = store
    queues = try await store.makeQueues(queueCount)
    for poll in 0..<polls { receive(poll % queueCount) }
  }

  private func receive(_ queue: Int) {
    let request = ReceiveRequest(
      maximumMessages: 1, wait: .seconds(43_200), visibilityTimeout: .seconds(43_200))
    store?.receive(request, from: queues[queue].id) { [record, store] result in
      switch result {
      case .success(let messages):
        guard let message = messages.first, let store else { return }
        let handle = store.receiptHandle(for: message.handle)
        record.add(nil, .init(poll: queue, handle: handle, at: 0))
      case .failure(let error): record.add("\(error)")
      }
    }
  }

  func wake(_ queue: Int, _ times: inout WakeTimes) throws {
    guard let store else { return }
    let began = RealClock().monotonicNanoseconds()
    let entry = SendEntry(MessageContent(body: [UInt8](repeating: 97, count: 100)))
    store.send([entry], to: queues[queue].id) { [record] result in
      do {
        for sent in try result.get() { _ = try sent.get() }
        record.add(nil)
      } catch { record.add("\(error)") }
    }
    let (answered, woken) = try record.wait()
    times.add(began, answered, woken.at)
    guard let handle = store.leaseHandle(from: woken.handle) else { return }
    store.delete([handle], from: queues[queue].id) { [record] result in
      do {
        for deleted in try result.get() { try deleted.get() }
        record.add(nil)
      } catch { record.add("\(error)") }
    }
    receive(queue)
    try record.waitForAnswer()
  }

  func woken() async throws -> Int {
    guard store?.metrics().waitingReceives == polls else { return -1 }
    return record.count
  }

  func end() {
    let (store, bell) = (self.store, Doorbell())
    self.store = nil
    queues = []
    store?.close { _ in bell.ring() }
    if store != nil { bell.wait() }
  }
}

extension Store {
  /// Makes queues that are named by their numbers, many at a time.
  func makeQueues(_ count: Int) async throws -> [Queue] {
    var queues: [Queue] = []
    for start in stride(from: 0, to: count, by: 256) {
      queues += try await withThrowingTaskGroup(of: (Int, Queue).self) { tasks in
        for number in start..<min(start + 256, count) {
          tasks.addTask { (number, try await self.queue("q\(number)")) }
        }
        var made: [(Int, Queue)] = []
        for try await queue in tasks { made.append(queue) }
        return made.sorted { $0.0 < $1.0 }.map(\.1)
      }
    }
    return queues
  }
}
