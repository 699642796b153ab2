// SPDX-License-Identifier: Apache-2.0
import PenstockCore
import PenstockSystem
import PenstockTesting
import Testing

private struct NoFailure: Error {}

/// Where messages came from was written, though all of them waited to be freed: then the checkpoint
/// was refused.
@Test func aCheckpointOfMovedAndPurgedMessagesIsRead() throws {
  var machine = Machine()
  let (queue, dead) = (try machine.create("q"), try machine.create("dead"))
  for _ in 0..<40 { try machine.send(queue) }
  for candidate in machine.state.candidates(queue, limit: 40) {
    try machine.apply(
      machine.state.decideTransfer(queue, candidate, to: dead, .receivedTooOften))
  }
  try machine.purge(dead)
  let read = try decodedState(encoded(machine.state))
  #expect(read.stateHash() == machine.state.stateHash())
}

/// The bytes of a state, as a checkpoint holds them.
func encoded(_ state: State) -> [UInt8] {
  var bytes: [UInt8] = []
  let buffer = CommitBuffer(capacity: 4096)
  state.encode(buffer) { buffer in
    bytes += buffer.withBytes { $0.array }
    buffer.removeAll()
  }
  return bytes
}

func decodedState(_ bytes: [UInt8]) throws(RecordError) -> State {
  try bytes.withRaw { (raw) throws(RecordError) in try State(raw) }
}

/// A random history in which messages are parked behind a small window, drawn, moved, set aside,
/// and die by the hundred. Now and then the state is replaced by what its bytes give, or by a
/// replay of all records: the history goes on with either.
private struct History {
  enum Operation: CaseIterable {
    case send, burst, delayedSend, receive, delete, changeVisibility, passTime, draw, move
    case setAside, excise, cleared, purge, createQueue, deleteQueue, changeQueue, restart,
      checkpoint
  }

  var machine = Machine()
  let random: StableRandom
  var operations: [Operation] = []
  var queues: [QueueID] = []
  var handles: [LeaseHandle] = []
  /// What happened often enough to be meant.
  var seen: [Operation: Int] = [:]
  var dyingInCheckpoints = 0

  init(seed: UInt64) {
    random = StableRandom(seed: seed)
    machine.state.window = 1 + random.below(12)
    machine.segmentRecords = UInt64(8 + random.below(60))
    for operation in Operation.allCases {
      let weight =
        switch operation {
        case .send, .receive, .draw: 10
        case .delete, .passTime, .move: 7
        case .burst, .delayedSend, .changeVisibility, .excise: 4
        case .setAside, .cleared, .checkpoint, .createQueue, .changeQueue: 2
        case .purge, .deleteQueue, .restart: 1
        }
      let isIn = [.send, .checkpoint].contains(operation) || random.chance(5, of: 6)
      if isIn { operations += Array(repeating: operation, count: weight) }
    }
  }

  mutating func run(steps: Int) throws {
    try createQueue()
    for _ in 0..<steps { try performAny() }
    try checkpoint()
    try restart()
  }

  mutating func performAny() throws { try perform(operations[random.below(operations.count)]) }

  mutating func perform(_ operation: Operation) throws {
    if queues.isEmpty { return try createQueue() }
    let queue = queues[random.below(queues.count)]
    seen[operation, default: 0] += 1
    switch operation {
    case .send: try machine.send(queue)
    case .burst: for _ in 0..<random.below(16) { try machine.send(queue) }
    case .delayedSend: try machine.send(queue, delay: [1, 700, 90_000][random.below(3)])
    case .receive:
      handles += try machine.receive(
        queue, 1 + random.below(6), timeout: [0, 999, 40_000][random.below(3)])
    case .delete: try delete()
    case .changeVisibility:
      guard let handle = handles.randomElement(by: random), queues.contains(handle.queue) else {
        return
      }
      do { try machine.hide(handle, for: [0, 2500, 300_000][random.below(3)]) } catch is Refusal {}
    case .passTime:
      try machine.pass(milliseconds: [1, 1000, 31_000, 70_000][random.below(4)])
    case .draw: try draw(queue)
    case .move: for _ in 0..<1 + random.below(6) { try move() }
    case .setAside: try setAside()
    case .excise: for _ in 0..<1 + random.below(4) { try excise(queue) }
    case .cleared:
      try machine.apply(
        Entry(queue: QueueID(0), time: machine.state.time, record: .cleared))
    case .purge: try machine.purge(queue)
    case .createQueue: if queues.count < 4 { try createQueue() }
    case .deleteQueue:
      try machine.remove(queue)
      queues.removeAll { $0 == queue }
    case .changeQueue: try machine.change(queue, QueueSettingsChange(settings()))
    case .restart: try restart()
    case .checkpoint: try checkpoint()
    }
  }

  private func settings() -> QueueSettings {
    QueueSettings(
      visibilityTimeout: .seconds(30), retention: .seconds([60, 600, 345_600][random.below(3)]))
  }

  private mutating func createQueue() throws {
    let name = "q\(random.below(6))"
    if machine.state.queue(named: name) != nil { return }
    queues.append(try machine.create(name, QueueSettingsChange(settings())))
  }

  private mutating func delete() throws {
    guard let handle = handles.randomElement(by: random), queues.contains(handle.queue) else {
      return
    }
    try machine.delete(handle)
  }

  /// Where what was parked of a queue in a segment stands, as the segment's index has it.
  private func waiting(_ draw: State.Draw) -> [State.Parked] {
    machine.parked.filter {
      $0.queue == draw.queue && $0.segment == draw.segment
        && (draw.first...draw.last).contains($0.message.message)
    }.filter { !machine.state.withoutHoles(draw.queue, [$0.message]).isEmpty }
      .sorted { $0.message.message < $1.message.message }
  }

  private mutating func excise(_ queue: QueueID) throws {
    guard let draw = machine.state.walkParked(queue, WalkCursor(), limit: 100),
      let found = waiting(draw).randomElement(by: random)
    else { return }
    let position = UInt64(found.segment) << 32 | UInt64(found.message.offset)
    let sight = State.Sight(parked: found.message, position: position, bytesQueue: queue)
    try machine.apply(try #require(machine.state.decideRemove(sight, from: queue)))
    #expect(machine.state.decideRemove(sight, from: queue) == nil)
    let read = try decodedState(encoded(machine.state))
    #expect(read.stateHash() == machine.state.stateHash())
  }

  private mutating func draw(_ queue: QueueID) throws {
    guard let draw = machine.state.decideDraw(queue) else { return }
    let found = waiting(draw).prefix(draw.limit).map(\.message)
    let entry = try #require(machine.state.decideDrawn(draw, Array(found)))
    try machine.apply(entry)
  }

  /// One that is sealed: in it each message stands once.
  private func segment() -> UInt32? {
    guard let last = machine.log.last, let records = machine.segmentRecords else { return nil }
    let open = (last.lsn + 1) / records
    let segments = machine.state.residents.keys.filter { UInt64($0) < open }.sorted()
    return segments.isEmpty ? nil : segments[random.below(segments.count)]
  }

  private func sent(_ message: UInt64) throws -> (Entry, MessageID) {
    let entry = try #require(machine.log.first { $0.lsn == message }).entry
    guard case .sent(let sent) = entry.record else { throw NoFailure() }
    return (entry, sent.id)
  }

  private mutating func move() throws {
    guard let segment = segment() else { return }
    let residents = machine.state.residents(of: segment, slots: 0..<machine.state.slotCount)
    if let resident = residents.randomElement(by: random),
      let queue = machine.state.owner(of: resident)
    {
      let (entry, id) = try sent(resident.message)
      try machine.apply(
        Entry(
          queue: queue, time: entry.time,
          record: .moved(.init(id: id, message: resident.message, slot: resident.slot))))
    }
    guard let draw = machine.state.parked(in: segment).randomElement(by: random),
      let first = waiting(draw).first
    else { return }
    #expect(
      machine.state.isFirstParked(
        first.message.message, draw.queue, in: segment, size: Int(first.message.size)))
    let (entry, id) = try sent(first.message.message)
    try machine.apply(
      Entry(
        queue: draw.queue, time: entry.time,
        record: .moved(
          .init(id: id, message: first.message.message, slot: nil, isAgain: first.isCopy))))
  }

  private mutating func setAside() throws {
    guard let segment = segment() else { return }
    let residents = machine.state.residents(of: segment, slots: 0..<machine.state.slotCount)
    if random.chance(1, of: 2), let resident = residents.randomElement(by: random) {
      if let entry = machine.state.decideSetAside(resident) { try machine.apply(entry) }
    } else if let draw = machine.state.parked(in: segment).randomElement(by: random),
      let first = waiting(draw).first?.message
    {
      try machine.apply(
        Entry(
          queue: draw.queue, time: machine.state.time,
          record: .setAside(message: first.message, slot: nil, size: first.size)))
    }
  }

  private mutating func restart() throws {
    let fresh = try machine.replayed()
    #expect(fresh.stateHash() == machine.state.stateHash())
    #expect(fresh.brokenInvariant() == nil)
    machine.state = fresh
  }

  private mutating func checkpoint() throws {
    let old = machine.state
    let bytes = encoded(old)
    var read = try decodedState(bytes)
    read.window = old.window
    #expect(read.brokenInvariant() == nil)
    #expect(read.stateHash() == old.stateHash())
    #expect(read.time == old.time)
    #expect(read.residents == old.residents && read.liveBytes == old.liveBytes)
    #expect(read.liveCount == old.liveCount && read.parkedCount == old.parkedCount)
    #expect(read.dyingCount == old.dyingCount && read.messageCount == old.messageCount)
    for queue in queues {
      #expect(read.describe(queue) == old.describe(queue))
      #expect(read.decideDraw(queue) == old.decideDraw(queue))
    }
    #expect(encoded(read) == bytes)
    if old.dyingCount > 0 { dyingInCheckpoints += 1 }
    machine.state = read
  }
}

extension Array {
  fileprivate func randomElement(by random: StableRandom) -> Element? {
    isEmpty ? nil : self[random.below(count)]
  }
}

@Suite struct StateBytes {
  @Test func ofAnEmptyState() throws {
    let read = try decodedState(encoded(State()))
    #expect(read.stateHash() == State().stateHash())
    #expect(encoded(State()).count == 28)
  }

  /// Also while dead letters that were purged wait to be freed, and what has expired, or has a
  /// priority, is among them.
  @Test(arguments: [false, true]) func areReadAtEveryStepOfDeadLetters(isFIFO: Bool) throws {
    var machine = Machine()
    let dead = try machine.create(
      "dead", QueueSettingsChange(QueueSettings(retention: .seconds(100), isFIFO: isFIFO)))
    let queue = try machine.create(
      "q",
      .init {
        $0.isFIFO = isFIFO
        $0.deadLetterQueue = "dead"
        $0.maximumReceives = 1
      })
    func check() throws {
      let read = try decodedState(encoded(machine.state))
      #expect(read.stateHash() == machine.state.stateHash())
      #expect(read.brokenInvariant() == nil)
      #expect(try machine.replayed().stateHash() == machine.state.stateHash())
      // Names of queues that only messages came from which wait to be freed are left out.
      if machine.state.dyingCount == 0 { #expect(encoded(read) == encoded(machine.state)) }
    }
    for number in UInt64(0)..<60 {
      if isFIFO {
        try machine.send(queue, group: number % 7)
      } else {
        let send = try machine.state.decideSend(
          queue, messageID: MessageID(randomHigh: number, randomLow: 1), size: 1, delay: nil,
          group: nil, deduplication: nil, priority: UInt8(number % 3))
        if case .record(let entry) = send { try machine.apply(entry) }
      }
      if number % 20 == 0 { try machine.pass(seconds: 10) }
    }
    let leases = try machine.receive(queue, 100, timeout: 0)
    #expect(leases.count == 60)
    for message in machine.state.candidates(queue, limit: 100) {
      try machine.apply(
        machine.state.decideTransfer(queue, message, to: dead, .receivedTooOften))
      try check()
    }
    for _ in 0..<3 {
      machine.advanceOnly(seconds: 30)
      try check()
    }
    while let entry = machine.state.nextExpired() {
      try machine.apply(entry)
      try check()
    }
    #expect(isFIFO || machine.counts(dead)[0] < 60)
    try machine.purge(dead)
    for _ in 0..<6 {
      try check()
      try machine.apply(Entry(queue: QueueID(0), time: machine.state.time, record: .cleared))
    }
  }

  /// Of a queue that was deleted with all it had in memory: no chunk is larger than a start reads.
  @Test func areWrittenInPiecesAlsoOfWhatIsDying() throws {
    var state = State()
    state.window = .max
    let queue = QueueID(1)
    var lsn: UInt64 = 1
    func apply(_ record: Record) throws {
      lsn += 1
      let entry = Entry(queue: queue, time: Timestamp(milliseconds: 1000), record: record)
      try state.apply(entry, lsn: lsn, position: 1 << 32 | 4096, size: 64)
    }
    try apply(.queueCreated(name: "q", settings: QueueSettings()))
    let id = MessageID(randomHigh: 1, randomLow: 1)
    for _ in 0..<100_000 { try apply(.sent(.init(id: id, visibleAt: nil))) }
    try apply(.queueDeleted)
    #expect(state.dyingCount > 99_000)
    var bytes: [UInt8] = []
    var largest = 0
    state.encode(CommitBuffer(capacity: 4096)) { buffer in
      largest = max(largest, buffer.count)
      bytes += buffer.withBytes { $0.array }
      buffer.removeAll()
    }
    #expect(bytes.count > 2 << 20)
    #expect(largest < 2 << 20)
    let read = try decodedState(bytes)
    #expect(read.dyingCount == state.dyingCount && read.brokenInvariant() == nil)
  }

  /// What goes on with the state that was read meets the replay of all records at the end, which
  /// gives each message the same place.
  @Test(arguments: UInt64(0)..<12) func goOnAsTheStateDid(seed: UInt64) throws {
    var history = History(seed: seed)
    try history.run(steps: 150)
  }

  /// A state that was read beside the one that was written, under the same records.
  @Test(arguments: UInt64(100)..<108) func giveOutTheSamePlaces(seed: UInt64) throws {
    var history = History(seed: seed)
    history.operations.removeAll { $0 == .restart || $0 == .checkpoint }
    for _ in 0..<60 { try history.performAny() }
    let start = history.machine.log.count
    var read = try decodedState(encoded(history.machine.state))
    for _ in 0..<60 { try history.performAny() }
    for logged in history.machine.log[start...] {
      _ = try history.machine.apply(logged, to: &read)
      #expect(read.brokenInvariant() == nil)
    }
    read.advance(to: history.machine.state.time)
    #expect(read.stateHash() == history.machine.state.stateHash())
    #expect(encoded(read).count == encoded(history.machine.state).count)
  }

  /// The histories do what they are there for.
  @Test func coverEveryOperation() throws {
    var seen: [History.Operation: Int] = [:]
    var (parked, dying) = (0, 0)
    for seed in UInt64(20)..<28 {
      var history = History(seed: seed)
      try history.run(steps: 150)
      seen.merge(history.seen) { $0 + $1 }
      parked += history.machine.parked.count
      dying += history.dyingInCheckpoints
    }
    for operation in History.Operation.allCases { #expect(seen[operation, default: 0] > 2) }
    #expect(parked > 100)
    #expect(dying > 0, "checkpoints with messages that wait to be freed")
  }

  // MARK: Hostile bytes

  /// Reads bytes that may be anything; a state that comes of it must be sound, and go on
  /// without a trap or an endless loop, though times out of order may make it expire too late.
  private func take(_ bytes: [UInt8]) {
    guard var state = try? decodedState(bytes) else { return }
    #expect(state.brokenInvariant() == nil)
    _ = encoded(state)
    _ = state.stateHash()
    for name in state.queueNames(prefix: "", after: nil, limit: 5) {
      guard let queue = state.queue(named: name) else { continue }
      _ = state.decideDraw(queue)
      for candidate in state.candidates(queue, limit: 2) {
        apply(state.decideLease(queue, candidate, timeout: .max), &state)
      }
      let id = MessageID(randomHigh: 1, randomLow: 1)
      let group = TextHash(high: 1, low: 1)
      // The bytes may have given the queue another kind or limit: then nothing is sent.
      let send = try? state.decideSend(
        queue, messageID: id, size: 0, delay: 0, group: group, deduplication: group)
      if case .record(let entry)? = send {
        apply(entry, &state)
      }
    }
    for _ in 0..<4 { if let entry = state.nextExpired() { apply(entry, &state) } }
    apply(Entry(queue: QueueID(0), time: state.time, record: .cleared), &state)
    state.advance(to: Timestamp(milliseconds: .max))
  }

  private func apply(_ entry: Entry, _ state: inout State) {
    _ = Result { () throws(RecordError) in
      try state.apply(entry, lsn: 1 << 56 - 1, position: 99 << 32, size: 64)
    }
  }

  @Test(arguments: UInt64(200)..<203) func everyFlippedBitIsAnErrorOrAState(seed: UInt64) throws {
    var history = History(seed: seed)
    try history.run(steps: 40)
    let bytes = encoded(history.machine.state)
    let random = StableRandom(seed: seed)
    let stride = max(1, bytes.count * 8 / 1500)
    for bit in Swift.stride(from: random.below(stride), to: bytes.count * 8, by: stride) {
      var flipped = bytes
      flipped[bit / 8] ^= 1 << UInt8(bit % 8)
      take(flipped)
    }
  }

  @Test(arguments: UInt64(300)..<302) func everyCutIsAnError(seed: UInt64) throws {
    var history = History(seed: seed)
    try history.run(steps: 40)
    let bytes = encoded(history.machine.state)
    for length in stride(from: 0, to: bytes.count, by: max(1, bytes.count / 500)) {
      #expect(throws: RecordError.self) { try decodedState(Array(bytes.prefix(length))) }
    }
    #expect(throws: RecordError.self) { try decodedState(bytes + [0]) }
  }

  /// Words that overflow something, at any place.
  @Test(arguments: UInt64(400)..<404) func extremeWordsAreAnErrorOrAState(seed: UInt64) throws {
    var history = History(seed: seed)
    try history.run(steps: 30)
    let bytes = encoded(history.machine.state)
    let random = StableRandom(seed: seed)
    for _ in 0..<400 {
      var changed = bytes
      for _ in 0...random.below(3) {
        let length = min([1, 4, 8, 16][random.below(4)], changed.count)
        let place = random.below(changed.count - length + 1)
        let byte = [UInt8(0), 255, 127, 128, 1][random.below(5)]
        for index in place..<place + length { changed[index] = byte }
      }
      take(changed)
    }
  }

  /// What is wrong with right checksums: each would break a rule of the state.
  @Test func whatNoStoreWritesIsRefused() throws {
    var machine = Machine()
    machine.state.window = 2
    machine.segmentRecords = 4
    let queue = try machine.create()
    for _ in 0..<10 { try machine.send(queue) }
    let bytes = encoded(machine.state)
    _ = try decodedState(bytes)
    // Behind the head (24), the number of queues (4), id, length and name (9), five settings (40)
    // and two times (16) come three numbers (20) and the number of runs (4).
    let runs = 24 + 4 + 9 + 40 + 16 + 20 + 4
    #expect(bytes[runs - 4] == 3)
    func refuses(_ place: Int, _ new: [UInt8], _ what: Comment) {
      var changed = bytes
      changed.replaceSubrange(place..<place + new.count, with: new)
      #expect(throws: RecordError.self, what) { try decodedState(changed) }
    }
    let most = [UInt8](repeating: 255, count: 4)
    refuses(8, [0, 0, 0, 0], "next queue")
    refuses(8, [1, 0, 0, 0], "a queue that is still to come")
    refuses(12, most, "places")
    refuses(12, [9, 0, 0, 0], "places left out")
    refuses(16, most, "free places")
    refuses(28, [0, 0, 0, 0], "queue 0")
    refuses(runs - 24, most + most, "purged, and there")
    refuses(runs, most, "a segment that no slot can name")
    refuses(runs + 4, most, "more messages in a run than fit")
    refuses(runs + 4, [0, 0, 0, 0], "no messages in a run")
    refuses(runs + 8, [0, 0, 0, 0, 0, 0, 0, 0], "a run from LSN 0")
    refuses(runs + 80 + 16, most + most, "a run to the last LSN")
    refuses(runs + 24, most + most, "more bytes in a run than in a segment")
    let slots = runs + 3 * 40
    refuses(slots, [1, 0, 0, 0], "a place twice")
    refuses(slots, [2, 0, 0, 0], "a place out of range")
    refuses(slots + 4, [0, 0, 0, 0, 0, 0, 0, 1], "a message without an LSN")
    refuses(slots + 4, [4, 0, 0, 0, 0, 0, 0, 1], "ready messages out of order")
    refuses(slots + 28, [99, 0, 0, 0, 0, 0, 0, 1], "a ready message behind a run")
    refuses(slots + 11, [3], "a leased message among the ready")
    refuses(slots + 11, [7], "a free message")
    refuses(slots + 11, [0xf9], "a size that no record has")
  }
}
