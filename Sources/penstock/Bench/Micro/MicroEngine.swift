// SPDX-License-Identifier: Apache-2.0
import Penstock
import PenstockCore
import PenstockLog
import PenstockSystem
import Synchronization

private let later = Timestamp(milliseconds: 1_800_000_000_000)
private let content = MessageContent(body: [UInt8](repeating: 97, count: 1024))

/// Records on their way into the log, and checksums.
final class MicroLog {
  private var tail = LogTail(lastLSN: LSN(0), nextSegment: 0, segmentSize: 32 << 20)
  private let buffer = CommitBuffer(capacity: 1 << 20)

  private static let sent = Entry(
    queue: QueueID(1), time: later,
    record: .sent(.init(id: MessageID(randomHigh: 1, randomLow: 2), visibleAt: nil)))
  private static let leased = Entry(
    queue: QueueID(1), time: later, record: .leased(message: 7, slot: 3, deadline: later))

  private let filler = {
    let buffer = CommitBuffer(capacity: 64 << 10)
    for word in 0..<8192 as Range<UInt64> { buffer.put(word &* 0x9e37_79b9_7f4a_7c15) }
    return buffer
  }()

  var operations: [MicroOperation] {
    [
      .init(name: "record: encode a send of 1 KiB") { self.encode(Self.sent, content, $0) },
      .init(name: "record: encode a lease") { self.encode(Self.leased, nil, $0) },
      .init(name: "log: append a send of 1 KiB", calls: 10_000) {
        self.append(Self.sent, content, $0)
      },
      .init(name: "log: append a lease", calls: 10_000) { self.append(Self.leased, nil, $0) },
      .init(name: "CRC-32C of 64 bytes", calls: 10_000, bytes: 64) { self.checksum(64, $0) },
      .init(name: "CRC-32C of 1 KiB", bytes: 1 << 10) { self.checksum(1 << 10, $0) },
      .init(name: "CRC-32C of 64 KiB", calls: 200, bytes: 64 << 10) { self.checksum(64 << 10, $0) },
    ]
  }

  private func encode(_ entry: Entry, _ content: MessageContent?, _ calls: Int) -> Int {
    for _ in 0..<calls {
      buffer.removeAll()
      entry.encode(content, into: buffer)
    }
    return buffer.count
  }

  /// Takes what was appended after each 64 records, as the writer does.
  private func append(_ entry: Entry, _ content: MessageContent?, _ calls: Int) -> Int {
    let payload = entry.payloadSize(content)
    let size = LogFormat.recordSize(payload: payload)
    for call in 0..<calls {
      while true {
        if case .ready = tail.makeRoom(size, for: .delete) { break }
        tail.prepared()
      }
      _ = tail.append(payload: payload, synced: false) { entry.encode(content, into: $0) }
      guard call % 64 == 63 else { continue }
      for batch in tail.takeBatches() { tail.wrote(batch) }
    }
    return Int(truncatingIfNeeded: tail.nextLSN.value)
  }

  private func checksum(_ size: Int, _ calls: Int) -> Int {
    filler.withBytes(0..<size) { bytes in
      var sum: UInt32 = 0
      for _ in 0..<calls { sum = CRC32C.of(bytes, seed: sum) }
      return Int(sum)
    }
  }
}

/// Records applied to a state that has 10,000 other messages in flight.
final class MicroState {
  private var state = State()
  private var lsn: UInt64 = 1
  private let queue = QueueID(1)
  private var taken: [State.Resident] = []
  private var isLeased = false
  private static let standing = 10_000

  var operations: [MicroOperation] {
    [
      .init(name: "state: apply a send", prepare: { _ in try self.clear() }) { try self.send($0) },
      .init(
        name: "state: apply a lease",
        prepare: {
          try self.clear()
          _ = try self.send($0)
          self.find()
        }
      ) { _ in try self.lease() },
      .init(
        name: "state: apply a delete",
        prepare: {
          try self.clear()
          _ = try self.send($0)
          self.find()
          _ = try self.lease()
        }
      ) { _ in try self.delete() },
    ]
  }

  private func apply(_ record: Record) throws {
    lsn += 1
    try state.apply(
      Entry(queue: queue, time: later, record: record), lsn: lsn,
      position: (lsn >> 18) << 32 | (lsn & 0x3ffff) * 64, size: 1096)
  }

  /// Deletes what is there of the rounds before.
  private func clear() throws {
    if lsn == 1 {
      try apply(.queueCreated(name: "q", settings: QueueSettings()))
      _ = try send(Self.standing)
      find()
      _ = try lease()
      (taken, isLeased) = ([], false)
    }
    if !isLeased {
      find()
      _ = try lease()
    }
    _ = try delete()
  }

  /// Takes note of all that are visible.
  private func find() {
    taken = state.candidates(queue, limit: state.counts(queue)?.visible ?? 0)
    isLeased = false
  }

  private func send(_ calls: Int) throws -> Int {
    for call in 0..<calls {
      try apply(
        .sent(.init(id: MessageID(randomHigh: lsn, randomLow: UInt64(call)), visibleAt: nil)))
    }
    return Int(lsn)
  }

  private func lease() throws -> Int {
    for message in taken {
      try apply(
        .leased(
          message: message.message, slot: message.slot,
          deadline: later.adding(43_200_000 + Int64(message.slot))))
    }
    isLeased = true
    return Int(lsn)
  }

  private func delete() throws -> Int {
    for message in taken {
      try apply(.deleted(message: message.message, slot: message.slot))
    }
    (taken, isLeased) = ([], false)
    return Int(lsn)
  }
}

/// The structures that the state is made of, with 100,000 in each.
final class MicroStructures {
  private var slab = Slab()
  private var list = SlotList()
  private var heap = IndexedHeap()
  private var places = Blocks<UInt32>()
  private var index = HashIndex()
  private let count: UInt32 = 100_000

  init() {
    for item in 0..<count {
      list.append(slab.allocate(), &slab)
      places.append(IndexedHeap.absent)
      heap.insert(item, key: Self.hash(item), &places)
      index.insert(item, hash: Self.hash(item), hashOf: Self.hash)
    }
  }

  private static func hash(_ item: UInt32) -> UInt64 {
    let value = (UInt64(item) &+ 1) &* 0x9e37_79b9_7f4a_7c15
    return value ^ value >> 29
  }

  var operations: [MicroOperation] {
    [
      .init(name: "slab: append and remove a slot", calls: 10_000, run: slots),
      .init(name: "timers: insert and remove", calls: 10_000, run: timers),
      .init(name: "index: insert, find and remove", calls: 10_000, run: find),
    ]
  }

  private func slots(_ calls: Int) -> Int {
    for _ in 0..<calls {
      list.append(slab.allocate(), &slab)
      let head = list.head
      list.remove(head, &slab)
      slab.free(head)
    }
    return slab.count
  }

  private func timers(_ calls: Int) -> Int {
    for call in 0..<UInt32(calls) {
      let item = call &* 7919 % count
      heap.remove(item, &places)
      heap.insert(item, key: Self.hash(item), &places)
    }
    return heap.count
  }

  private func find(_ calls: Int) -> Int {
    var found = 0
    for call in 0..<UInt32(calls) {
      let item = call &* 7919 % count
      index.remove(item, hash: Self.hash(item))
      index.insert(item, hash: Self.hash(item), hashOf: Self.hash)
      if index.first(Self.hash(item), where: { $0 == item }) != nil { found += 1 }
    }
    return found
  }
}

/// A store without syncs: what the engine itself costs.
final class MicroEngine {
  private let store: Store
  private let queue: Queue
  private var handles: [LeaseHandle] = []
  /// Of a send that this thread waits for: a task would add what it costs.
  private let answer = Answer()
  private final class Answer: Sendable {
    let bell = Doorbell()
    let lsn = Mutex<UInt64>(0)
  }
  private static let batch = 64
  private static let entries = Array(repeating: SendEntry(content), count: batch)

  init(_ path: String) async throws {
    var options = StoreOptions()
    options.durability = .written
    store = try await Store.open(at: path, options: options)
    queue = try await store.queue("q")
  }

  func close() async throws { try await store.close() }

  var operations: [MicroOperation] {
    let (batch, calls) = (Self.batch, 50)
    return [
      .init(name: "engine: send, of 64", size: batch, calls: calls, prepare: clear, run: send),
      .init(
        name: "engine: receive, of 64", size: batch, calls: calls,
        prepare: {
          try await self.clear()
          _ = try await self.send($0)
        }, run: receive),
      .init(
        name: "engine: delete, of 64", size: batch, calls: calls,
        prepare: {
          try await self.clear()
          _ = try await self.send($0)
          _ = try await self.receive($0)
        }, run: delete),
      .init(name: "engine: send one", calls: 500, prepare: clear) { calls in
        for _ in 0..<calls {
          self.store.send([Self.entries[0]], to: self.queue.id) { [answer = self.answer] result in
            // 0 stands for a send that failed.
            answer.lsn.withLock { $0 = (try? result.get().last?.get().lsn) ?? 0 }
            answer.bell.ring()
          }
          self.answer.bell.wait()
        }
        let last = self.answer.lsn.withLock { $0 }
        guard last > 0 else { throw BenchFailure("a send failed") }
        return Int(last)
      },
    ]
  }

  /// Deletes what is there of the rounds before.
  private func clear(_ calls: Int = 0) async throws {
    while true {
      _ = try await delete(0)
      let leases = try await queue.receive(maximum: 500)
      guard !leases.isEmpty else { return }
      handles = leases.map(\.message.handle)
    }
  }

  private func send(_ calls: Int) async throws -> Int {
    var last: UInt64 = 0
    for _ in 0..<calls {
      for result in try await queue.send(batch: Self.entries) { last = try result.get().lsn }
    }
    return Int(last)
  }

  private func receive(_ calls: Int) async throws -> Int {
    handles.reserveCapacity(calls * Self.batch)
    for _ in 0..<calls {
      let leases = try await queue.receive(
        maximum: Self.batch, wait: .seconds(10), visibilityTimeout: .seconds(43_200))
      // By index: a lease in a variable is a copy.
      for index in leases.indices { handles.append(leases[index].message.handle) }
    }
    guard handles.count == calls * Self.batch else {
      throw BenchFailure("\(handles.count) messages were received of \(calls * Self.batch)")
    }
    return handles.count
  }

  private func delete(_ calls: Int) async throws -> Int {
    for start in stride(from: 0, to: handles.count, by: Self.batch) {
      let part = Array(handles[start..<min(start + Self.batch, handles.count)])
      for result in try await queue.delete(part) { try result.get() }
    }
    defer { handles = [] }
    return handles.count
  }
}
