// SPDX-License-Identifier: Apache-2.0
import FuzzSupport
import PenstockCore
import PenstockLog
import PenstockSystem
import PenstockTesting

/// What keeps a store small: checkpoint files, the state in them, and indexes of segments. Real
/// ones are edited, with right checksums or without.
enum Keeping {
  static func run(_ data: UnsafePointer<UInt8>?, _ size: Int) -> CInt {
    var input = Input(data, size)
    let choice = input.byte()
    switch choice % 4 {
    case 0: state(input.rest())
    case 1:
      let base = states[input.below(states.count)]
      state(edited(base, &input))
    case 2: checkpoint(&input, repairs: choice & 0x80 != 0)
    default: index(&input, repairs: choice & 0x80 != 0)
    }
    return 0
  }

  // MARK: Bytes

  /// Up to 16 changes; most leave the length.
  private static func edited(_ base: [UInt8], _ input: inout Input) -> [UInt8] {
    var bytes = base
    for _ in 0..<16 where !input.isEmpty && !bytes.isEmpty {
      let kind = input.byte()
      let place = Int(input.number(bytes: 2)) % bytes.count
      func put(_ new: [UInt8]) {
        let end = min(bytes.count, place + new.count)
        bytes.replaceSubrange(place..<end, with: new.prefix(end - place))
      }
      func word(_ value: UInt64, _ count: Int) -> [UInt8] {
        (0..<count).map { UInt8(truncatingIfNeeded: value >> UInt64(8 * $0)) }
      }
      switch kind % 8 {
      case 0: put([input.byte()])
      case 1: bytes[place] ^= 1 << UInt8(input.below(8))
      case 2: put(word(UInt64(bitPattern: input.awkward()), 4))
      case 3: put(word(UInt64(bitPattern: input.awkward()), 8))
      case 4: put([UInt8](repeating: 255, count: 1 + input.below(8)))
      case 5:
        let from = Int(input.number(bytes: 2)) % bytes.count
        put(Array(bytes[from..<min(bytes.count, from + 1 + input.below(32))]))
      case 6: bytes.insert(contentsOf: input.take(1 + input.below(24)), at: place)
      default: bytes.removeSubrange(place..<min(bytes.count, place + 1 + input.below(24)))
      }
    }
    return bytes
  }

  private static func bytes(of state: State) -> [UInt8] {
    var bytes: [UInt8] = []
    state.encode(CommitBuffer(capacity: 4096)) { buffer in
      bytes += buffer.withBytes { $0.array }
      buffer.removeAll()
    }
    return bytes
  }

  private static func decoded(_ bytes: [UInt8]) -> State? {
    do { return try bytes.withRaw { (raw) throws(RecordError) in try State(raw) } } catch {
      return nil
    }
  }

  // MARK: States

  /// One without anything; one with messages in every condition; one with a long parked queue.
  private static let states: [[UInt8]] = {
    var state = State()
    var all = [bytes(of: state)]
    var lsn: UInt64 = 1
    func apply(_ record: Record, _ queue: UInt32 = 1, size: Int = 40) {
      lsn += 1
      let entry = Entry(
        queue: QueueID(queue), time: Timestamp(milliseconds: 1_700_000_000_000 + Int64(lsn) * 500),
        record: record)
      do throws(RecordError) {
        _ = try state.apply(
          entry, lsn: lsn, position: (lsn / 16) << 32 | (lsn % 16) * 64, size: size)
      } catch { check(false, "a base state cannot be made: \(error)") }
    }
    func sent(visibleAt: Int64? = nil, isParked: Bool = false) -> Record {
      .sent(
        .init(
          id: MessageID(randomHigh: lsn, randomLow: 1),
          visibleAt: visibleAt.map { Timestamp(milliseconds: $0) }, isParked: isParked))
    }
    apply(.queueCreated(name: "orders", settings: QueueSettings()))
    apply(.queueCreated(name: "tea", settings: QueueSettings(delay: .seconds(5))), 2)
    for _ in 0..<6 { apply(sent(), 2) }
    for number in 0..<6 { apply(sent(), 1, size: 48 << number) }
    apply(sent(visibleAt: 1_800_000_000_000))
    let end = Timestamp(milliseconds: 1_700_000_900_000)
    for slot in UInt32(6)..<9 {
      apply(.leased(message: UInt64(slot) + 4, slot: slot, deadline: end))
    }
    apply(.leaseChanged(message: 11, slot: 7, deadline: Timestamp(milliseconds: 0)))
    apply(.deleted(message: 13, slot: 9))
    apply(.purged, 2)
    all.append(bytes(of: state))
    for _ in 0..<40 { apply(sent(isParked: true)) }
    all.append(bytes(of: state))
    // Holes among what is parked, and tenants with what is in flight.
    for message in [lsn - 30, lsn - 12, lsn - 1, lsn] {
      apply(.excised(message: message, segment: UInt32(message / 16), size: 40))
    }
    apply(.queueCreated(name: "shared", settings: QueueSettings()), 3)
    for number in UInt64(0)..<9 {
      let group = TextHash(high: number % 3, low: 7)
      apply(
        .sent(
          .init(id: MessageID(randomHigh: lsn, randomLow: 2), visibleAt: nil, group: group)), 3)
    }
    for candidate in state.candidates(QueueID(3), limit: 4) {
      apply(.leased(message: candidate.message, slot: candidate.slot, deadline: end), 3)
    }
    all.append(bytes(of: state))
    return all
  }()

  /// A state that is read is sound, is written as it was read, and goes on.
  private static func state(_ bytes: [UInt8]) {
    guard var state = decoded(bytes) else { return }
    func expectWhole(_ when: String) {
      if let text = state.brokenInvariant() { check(false, "\(when): \(text)") }
    }
    expectWhole("as it was read")
    let again = decoded(Self.bytes(of: state))
    check(again?.stateHash() == state.stateHash(), "a state changes when it is written and read")
    var lsn: UInt64 = 1 << 56 - 2048
    func apply(_ entry: Entry) {
      lsn += 1
      do throws(RecordError) {
        _ = try state.apply(entry, lsn: lsn, position: 9 << 32 | lsn % 1024 * 64, size: 40)
      } catch {}
    }
    for name in state.queueNames(prefix: "", after: nil, limit: 4) {
      guard let queue = state.queue(named: name) else { continue }
      check(state.describe(queue)?.name == name, "a queue is not found by its name")
      _ = state.groupMetrics(queue)
      _ = state.candidates(queue, limit: 50)
      for candidate in state.candidates(queue, limit: 3) {
        apply(state.decideLease(queue, candidate, timeout: 30_000))
      }
      if let draw = state.decideDraw(queue) {
        let message = WaitingMessage(
          message: draw.first, offset: 4096, size: 40, sentSecond: 1_700_000_000)
        if let entry = state.decideDrawn(draw, [message]) { apply(entry) }
      }
      let id = MessageID(randomHigh: 1, randomLow: 2)
      do {
        let text = TextHash(high: lsn % 3, low: 3)
        let send = try state.decideSend(
          queue, messageID: id, size: 0, delay: 0, group: text, deduplication: text)
        if case .record(let entry) = send { apply(entry) }
      } catch {}
      for segment in state.residents.keys.sorted().prefix(2) {
        for resident in state.residents(of: segment, slots: 0..<64).prefix(2) {
          if let entry = state.decideSetAside(resident) { apply(entry) }
        }
      }
    }
    for _ in 0..<4 { if let entry = state.nextExpired() { apply(entry) } }
    apply(Entry(queue: QueueID(0), time: state.time, record: .cleared))
    // Times out of order may make it expire too late now, so it is only asked whether this ends.
    state.advance(to: Timestamp(milliseconds: .max))
    _ = state.brokenInvariant()
  }

  // MARK: Files

  private static let store = StoreID(high: 1, low: 2)

  /// A checkpoint that is read is whole: its header is written as it was read.
  private static func checkpoint(_ input: inout Input, repairs: Bool) {
    let disk = SimulatedFileSystem()
    do {
      try disk.createDirectory("/store")
      var writer = try CheckpointWriter(
        CheckpointHeader(
          store: store, lsn: LSN(7), ordinal: 2, firstLSN: LSN(8), previous: input.byte().word),
        directory: "/store", number: 1, disk)
      let buffer = CommitBuffer(capacity: 256)
      for _ in 0..<input.below(4) {
        buffer.put(input.take(1 + input.below(60)))
        try writer.append(buffer)
      }
      let path = "/store/" + (try writer.finish().name)
      var bytes = edited(disk.contents(of: path) ?? [], &input)
      if repairs { repairCheckpoint(&bytes) }
      disk.replace(path, with: bytes)
      guard let found = try Checkpoint.read(path, disk) else { return }
      check(found.body.count < bytes.count, "a checkpoint holds more than its file")
      let head = CommitBuffer(capacity: 64)
      found.header.write(into: head)
      check(
        bytes[8] != LogFormat.version
          || head.withBytes { $0.array }.elementsEqual(bytes.prefix(CheckpointHeader.size)),
        "a checkpoint's header changes when rewritten")
    } catch LogError.unsupportedVersion {
    } catch { check(false, "a file cannot be read: \(error)") }
  }

  private static func repairCheckpoint(_ bytes: inout [UInt8]) {
    Repair.seal(&bytes, 0..<60, into: 60)
    var offset = CheckpointHeader.size
    while offset + 8 <= bytes.count {
      let length = Int(bytes.word(offset))
      let end = offset + 8 + (length == 0 ? 8 : length)
      Repair.seal(&bytes, offset + 8..<max(offset + 8, end), into: offset + 4)
      guard length > 0 else { return }
      offset = end
    }
  }

  /// An index that is read answers in order, within what was asked.
  private static func index(_ input: inout Input, repairs: Bool) {
    var index = SegmentIndex()
    let count = Int(input.byte()) * 3
    var message: UInt64 = 100
    for number in 0..<count {
      message += 1 + UInt64(number % 3)
      let isCopy = number % 7 == 6
      index.append(
        .init(
          message: isCopy ? UInt64(count - number) : message, offset: 4096 + UInt32(number) * 64,
          size: 64, sentSecond: 1_700_000_000 + UInt32(number / 9)),
        queue: UInt32(number % 3), isCopy: isCopy)
    }
    let whole = index.encode(store: store, ordinal: 5).withBytes { $0.array }
    var bytes = edited(whole, &input)
    if repairs { repairIndex(&bytes) }
    let disk = SimulatedFileSystem()
    do {
      try disk.createDirectory("/store")
      disk.replace("/store/index", with: bytes)
      let file = try disk.open("/store/index", .readOnly)
      guard let found = try SegmentIndexFile(file, store: store, ordinal: 5) else { return }
      for queue in UInt32(0)..<4 {
        let first = UInt64(bitPattern: input.awkward())
        let last = max(first, UInt64(bitPattern: input.awkward()))
        let limit = [1, 10, Int.max][input.below(3)]
        let entries = try found.entries(queue: queue, from: first, through: last, limit: limit)
        guard let entries else { continue }
        check(entries.count <= limit, "more messages than were asked for")
        check(
          zip(entries, entries.dropFirst()).allSatisfy { $0.message <= $1.message },
          "messages out of order")
        check(
          entries.allSatisfy { (first...last).contains($0.message) }, "messages out of range")
        if bytes == whole {
          check(
            entries == index.entries(queue: queue, from: first, through: last, limit: limit),
            "the file and the memory disagree")
        }
      }
    } catch { check(false, "a file cannot be read: \(error)") }
  }

  private static func repairIndex(_ bytes: inout [UInt8]) {
    guard bytes.count >= 48 else { return }
    let (strips, blocks) = (Int(bytes.word(32)), Int(bytes.word(36)))
    let end = 48 + strips * 8 + blocks * 32
    guard end <= bytes.count else { return }
    var offset = end
    for block in 0..<blocks {
      let entry = 48 + strips * 8 + block * 32
      let length = Int(bytes.word(entry + 20))
      guard offset + length <= bytes.count else { break }
      Repair.seal(&bytes, offset..<offset + length, into: entry + 24)
      offset += length
    }
    bytes.setWord(0, at: 40)
    Repair.seal(&bytes, 0..<end, into: 40)
  }
}

extension UInt8 {
  fileprivate var word: UInt32 { UInt32(self) << 24 | UInt32(self) }
}
