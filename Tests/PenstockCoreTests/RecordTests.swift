// SPDX-License-Identifier: Apache-2.0
import PenstockCore
import PenstockSystem
import PenstockTesting
import Testing

/// Bytes of a record as the log keeps them.
private func encoded(_ entry: Entry, _ content: MessageContent? = nil) -> [UInt8] {
  let buffer = CommitBuffer(capacity: 4096)
  entry.encode(content, into: buffer)
  return buffer.withBytes { $0.array }
}

private func decoded(_ bytes: [UInt8]) throws(RecordError) -> Entry {
  try bytes.withRaw { (raw) throws(RecordError) in try Entry(raw) }
}

private func message(_ bytes: [UInt8]) throws(RecordError) -> StoredMessage {
  try bytes.withRaw { (raw) throws(RecordError) in try StoredMessage(raw) }
}

private let extremes = Timestamp(milliseconds: .min)
private let settings = QueueSettings(
  visibilityTimeout: .milliseconds(1), delay: .seconds(900), maximumMessageBytes: 262_144,
  retention: .milliseconds(Int64.max), receiveWait: .milliseconds(Int64.min))

private let records: [Record] = [
  .logCreated, .queueDeleted, .purged,
  .sent(.init(id: MessageID(randomHigh: .max, randomLow: 5), visibleAt: nil)),
  .sent(.init(id: MessageID(randomHigh: 1, randomLow: .max), visibleAt: extremes)),
  .queueCreated(name: "", settings: QueueSettings()),
  .queueCreated(name: "orders-Grüße-🐝", settings: settings),
  .queueChanged(settings: settings),
  .leased(message: .max, slot: .max, deadline: Timestamp(milliseconds: .max)),
  .leaseChanged(message: 1, slot: 2, deadline: extremes),
  .deleted(message: 3, slot: 4), .expired(through: .max), .cleared,
  .sent(.init(id: MessageID(randomHigh: 1, randomLow: 2), visibleAt: nil, isParked: true)),
  .moved(.init(id: MessageID(randomHigh: 1, randomLow: 2), message: .max, slot: .max)),
  .moved(.init(id: MessageID(randomHigh: 1, randomLow: 2), message: 3, slot: nil, isAgain: true)),
  .moved(
    .init(id: MessageID(randomHigh: 1, randomLow: 2), message: 0, slot: 0, hasExtras: true)),
  .drawn(segment: .max, []),
  .drawn(
    segment: 1,
    [
      .init(message: 5, offset: .max, size: 48, sentSecond: 7),
      .init(message: .max, offset: 0, size: .max, sentSecond: .max),
    ]),
  .excised(message: .max, segment: 2, size: .max),
  .setAside(message: .max, slot: .max - 1, size: .max), .setAside(message: 1, slot: nil, size: 0),
  .sent(.init(id: MessageID(randomHigh: 1, randomLow: 2), visibleAt: nil, priority: 255)),
  .transferred(
    .init(message: .max, slot: .max, target: QueueID(.max), reason: .receivedTooOften)),
  .transferred(.init(message: 1, slot: 0, target: QueueID(2), reason: .rejected)),
  .task(
    .init(
      id: MessageID(randomHigh: 1, randomLow: 2), event: .started, number: .max, count: .max,
      destination: "ü")),
  .task(.init(id: MessageID(randomHigh: 1, randomLow: 2), event: .moved, count: 1)),
  .attempted(TextHash(high: .max, low: 1), []),
  .attempted(
    TextHash(high: 1, low: .max), [.init(message: .max, slot: .max), .init(message: 1, slot: 0)]),
  .queueCreated(name: "fifo", settings: fullSettings), .queueChanged(settings: fullSettings),
]

/// Every setting is at another value than its default.
private let fullSettings = QueueSettings(isFIFO: true) {
  $0.deduplicatesByContent = true
  $0.deduplicatesByGroup = true
  $0.showsGroupScope = true
  $0.showsGroupLimit = true
  $0.deduplicationWindow = .zero
  $0.deadLetterQueue = "ü"
  $0.maximumReceives = 1000
  $0.deadLetterSources = []
  $0.maximumMessages = .max
  $0.maximumBytes = 1
  $0.maximumLeased = 2
  $0.priorityStep = .milliseconds(Int64.min)
  $0.showsAllowAll = true
  $0.tags = ["ä": "", "": "b", "z": "zz"]
  $0.policy = #"{"Version":"2012-10-17"}"#
  $0.encryptionKey = "ü"
  $0.dataKeyReuse = .zero
  $0.showsEncryption = "x"
}

private let contents: [MessageContent] = [
  MessageContent(body: []),
  MessageContent(body: Array("hello".utf8)),
  MessageContent(body: [0, 255, 10], groupID: "", traceHeader: "Root=1", senderID: "ä"),
  MessageContent(
    body: [1],
    attributes: [
      .init(name: "", type: "", value: .string("")),
      .init(name: "k", type: "Number.int", value: .string("0042")),
      .init(name: "blob", type: "Binary.png", value: .binary([0, 1, 255])),
      .init(name: "none", type: "Binary", value: .binary([])),
    ], groupID: "g"),
]

@Suite struct RecordCodec {
  @Test(arguments: records) func givesBackEveryRecord(record: Record) throws {
    for time in [Int64.min, 0, 1_700_000_000_123, .max] {
      let entry = Entry(
        queue: QueueID(.max), time: Timestamp(milliseconds: time), record: record)
      let bytes = encoded(entry)
      #expect(bytes.count == entry.payloadSize())
      #expect(try decoded(bytes) == entry)
    }
  }

  @Test(arguments: contents) func givesBackEveryMessage(content: MessageContent) throws {
    for visibleAt in [nil, Timestamp(milliseconds: 77)] {
      let sent = Record.Sent(id: MessageID(randomHigh: 9, randomLow: 8), visibleAt: visibleAt)
      let entry = Entry(
        queue: QueueID(3), time: Timestamp(milliseconds: 5), record: .sent(sent))
      let bytes = encoded(entry, content)
      #expect(bytes.count == entry.payloadSize(content))
      #expect(try decoded(bytes) == entry)
      let stored = try message(bytes)
      #expect(stored.content == content)
      #expect(stored.id == sent.id)
      #expect(stored.queue == QueueID(3))
      #expect(stored.sentAt == entry.time)
    }
  }

  @Test func attributesComeBackByteForByteAndInOrder() throws {
    // Not normalised, not trimmed: two spellings of one letter stay two.
    let names = ["b", "a", "e\u{301}", "\u{e9}", " "]
    let content = MessageContent(
      body: Array(" \u{feff}x\r\n".utf8),
      attributes: names.map { .init(name: $0, type: "String", value: .string($0)) })
    let sent = Record.sent(.init(id: MessageID(randomHigh: 0, randomLow: 0), visibleAt: nil))
    let entry = Entry(queue: QueueID(1), time: Timestamp(milliseconds: 1), record: sent)
    let back = try message(encoded(entry, content)).content
    #expect(back.body == content.body)
    #expect(back.attributes.map { Array($0.name.utf8) } == names.map { Array($0.utf8) })
  }

  @Test func everyTruncationIsAnErrorOrAValue() {
    for record in records {
      let entry = Entry(queue: QueueID(1), time: Timestamp(milliseconds: 1), record: record)
      let bytes = encoded(entry)
      for length in 0..<bytes.count {
        let part = Array(bytes.prefix(length))
        let result = Result { () throws(RecordError) in try decoded(part) }
        // Only a name may be shorter and still be one.
        if case .success(let entry) = result {
          if case .task = entry.record {
            #expect(entry.payloadSize() == length)
            continue
          }
          guard case .queueCreated(let name, let settings) = entry.record else {
            Issue.record("\(length) bytes of \(record) were taken for \(entry.record)")
            continue
          }
          let whole = Entry(
            queue: entry.queue, time: entry.time,
            record: .queueCreated(name: name, settings: settings))
          #expect(whole.payloadSize() == length)
        }
      }
    }
  }

  @Test func everyTruncationOfAMessageIsAnErrorOrAShorterBody() {
    for content in contents {
      let sent = Record.sent(.init(id: MessageID(randomHigh: 1, randomLow: 1), visibleAt: nil))
      let entry = Entry(queue: QueueID(1), time: Timestamp(milliseconds: 1), record: sent)
      let bytes = encoded(entry, content)
      for length in 0..<bytes.count {
        let part = Array(bytes.prefix(length))
        let result = Result { () throws(RecordError) in try message(part) }
        if case .success(let stored) = result {
          #expect(stored.content.attributes == content.attributes)
          #expect(stored.content.body == Array(content.body.dropLast(bytes.count - length)))
        }
      }
    }
  }

  /// Every bit once, and many bits at random: no flip may trap.
  @Test func flippedBitsAreAnErrorOrAValue() throws {
    let random = StableRandom(seed: 4)
    for record in records {
      for content in contents {
        let entry = Entry(queue: QueueID(1), time: Timestamp(milliseconds: 1), record: record)
        var bytes = encoded(entry)
        switch record {
        case .sent: bytes = encoded(entry, content)
        case .moved: bytes += content.body
        default: continue
        }
        for bit in 0..<bytes.count * 8 {
          var flipped = bytes
          flipped[bit / 8] ^= 1 << UInt8(bit % 8)
          _ = Result { () throws(RecordError) in try message(flipped) }
        }
        for _ in 0..<200 {
          var flipped = bytes
          for _ in 0...random.below(8) {
            flipped[random.below(flipped.count)] ^= 1 << UInt8(random.below(8))
          }
          _ = Result { () throws(RecordError) in try message(flipped) }
        }
      }
      let plain = encoded(
        Entry(queue: QueueID(1), time: Timestamp(milliseconds: 1), record: record))
      for bit in 0..<plain.count * 8 {
        var flipped = plain
        flipped[bit / 8] ^= 1 << UInt8(bit % 8)
        if let entry = try? decoded(flipped) { #expect(try decoded(encoded(entry)) == entry) }
      }
    }
  }

  @Test func randomBytesAreAnErrorOrAValue() {
    let random = StableRandom(seed: 5)
    for _ in 0..<4000 {
      var bytes = (0..<random.below(120)).map { _ in UInt8(random.below(256)) }
      // Most would end at an unknown kind.
      if !bytes.isEmpty { bytes[0] = UInt8(random.below(17)) }
      _ = Result { () throws(RecordError) in try decoded(bytes) }
      _ = Result { () throws(RecordError) in try message(bytes) }
    }
  }

  @Test func anUnknownKindAndAnInvalidNameAreNamed() {
    let unknown = #expect(throws: RecordError.self) {
      try decoded([200] + [UInt8](repeating: 0, count: 15))
    }
    #expect(unknown?.description.contains("200") == true)
    let created = Entry(
      queue: QueueID(1), time: Timestamp(milliseconds: 1),
      record: .queueCreated(name: "x", settings: QueueSettings()))
    let name = #expect(throws: RecordError.self) {
      try decoded(encoded(created).dropLast() + [0xff])
    }
    #expect(name != nil)
  }

  /// The format says zero, so anything else is another version or damage.
  @Test(arguments: records) func otherBytesWhereZerosBelongAreRefused(record: Record) {
    let entry = Entry(queue: QueueID(1), time: Timestamp(milliseconds: 1), record: record)
    // Of a message: a priority, and whether its delay is its own, which few may have.
    var places = [3]
    if case .sent = record {} else { places.append(2) }
    var isSent = false
    switch record {
    case .leased, .leaseChanged, .deleted: places += [28, 31]
    case .sent: isSent = true
    case .moved(let moved): if moved.slot != nil { places += [44, 47] }
    default: break
    }
    for place in places {
      var bytes = encoded(entry)
      bytes[place] ^= 1
      #expect(throws: RecordError.self, "byte \(place)") { try decoded(bytes) }
    }
    var flags: [UInt8] = [1, 2, 4, 8, 16, 32, 64, 128]
    if isSent { flags = [8, 32, 64, 128] }
    // A delayed message is not parked, a copy is not delayed and has one place.
    if case .sent(let sent) = record { flags += [sent.visibleAt == nil ? 8 : 16] }
    if case .moved = record { flags = [1, 8, 16, 64, 128] }
    for flag in flags {
      var bytes = encoded(entry)
      bytes[1] ^= flag
      #expect(throws: RecordError.self, "flag \(flag)") { try decoded(bytes) }
    }
  }

  /// Each value is read only as it would be written: no order but one, no key twice.
  @Test func tagsInAnotherOrderOrTwiceAreRefused() throws {
    let entry = Entry(
      queue: QueueID(1), time: Timestamp(milliseconds: 1),
      record: .queueChanged(settings: QueueSettings { $0.tags = ["a": "1", "b": "2"] }))
    let bytes = encoded(entry)
    #expect(try decoded(bytes) == entry)
    let pairs = bytes.count - 20
    #expect(bytes[pairs + 4] == UInt8(ascii: "a") && bytes[pairs + 14] == UInt8(ascii: "b"))
    for key in ["b", "c"] {
      var other = bytes
      other[pairs + 4] = Array(key.utf8)[0]
      #expect(throws: RecordError.self) { try decoded(other) }
    }
    var truth = encoded(
      Entry(
        queue: QueueID(1), time: entry.time,
        record: .queueChanged(settings: QueueSettings { $0.showsAllowAll = true })))
    truth[truth.count - 7] = 1
    #expect(throws: RecordError.self) { try decoded(truth) }
  }

  @Test func aSealedMessageHasNoAttributes() throws {
    var content = MessageContent(
      body: [1, 2], attributes: [.init(name: "a", type: "String", value: .string("b"))])
    content.sealedWith = "key"
    let sent = Record.Sent(id: MessageID(randomHigh: 9, randomLow: 8), visibleAt: nil)
    let entry = Entry(queue: QueueID(3), time: Timestamp(milliseconds: 5), record: .sent(sent))
    #expect(throws: RecordError.self) { try message(encoded(entry, content)) }
    content.attributes = []
    #expect(try message(encoded(entry, content)).content == content)
  }

  @Test(arguments: contents) func whatIsSealedComesBack(content: MessageContent) throws {
    #expect(content.opened(content.plain) == content)
    var bare = content
    (bare.body, bare.attributes, bare.sealedWith) = ([9], [], "key")
    #expect(bare.opened(content.plain) == content)
    for end in 0..<min(4, content.plain.count) {
      #expect(bare.opened(Array(content.plain.prefix(end))) == nil)
    }
  }

  @Test(arguments: records) func aRecordThatGoesOnIsRefused(record: Record) {
    switch record {
    case .sent, .moved, .queueCreated, .task: return
    default: break
    }
    let entry = Entry(queue: QueueID(1), time: Timestamp(milliseconds: 1), record: record)
    #expect(throws: RecordError.self) { try decoded(encoded(entry) + [0]) }
  }

  @Test func aMessageIsReadFromAMessageAlone() {
    let entry = Entry(queue: QueueID(1), time: Timestamp(milliseconds: 1), record: .purged)
    #expect(throws: RecordError.self) { try message(encoded(entry)) }
  }

  @Test(arguments: contents) func aCopyHoldsTheMessage(content: MessageContent) throws {
    let sent = Record.Sent(
      id: MessageID(randomHigh: 9, randomLow: 8), visibleAt: Timestamp(milliseconds: 77))
    let original = Entry(
      queue: QueueID(3), time: Timestamp(milliseconds: 5), record: .sent(sent))
    var bytes = encoded(original, content)
    let expected = try message(bytes)
    // To a place in memory, from there to another, and into a run.
    for (round, slot) in [UInt32(4), 5, nil].enumerated() {
      let (entry, start) = try bytes.withRaw { (raw) throws(RecordError) in
        try Entry.copy(of: raw, message: 12, slot: slot)
      }
      bytes = encoded(entry) + bytes[start...]
      #expect(try decoded(bytes) == entry)
      #expect(try message(bytes) == expected)
      guard case .moved(let moved) = entry.record else {
        Issue.record("no copy")
        continue
      }
      #expect(moved.message == 12 && moved.slot == slot && moved.id == sent.id)
      #expect(moved.isAgain == (round > 0))
      #expect(moved.hasExtras == (bytes[1] & 2 != 0))
      #expect(entry.queue == original.queue && entry.time == original.time)
    }
    let other = Entry(queue: QueueID(3), time: original.time, record: .purged)
    #expect(throws: RecordError.self) {
      try encoded(other).withRaw { (raw) throws(RecordError) in
        try Entry.copy(of: raw, message: 1, slot: nil)
      }
    }
  }

  /// A count must not decide how much memory is taken.
  @Test(arguments: [0, 1, 3, 1000, UInt32.max]) func aDrawCountsWhatItHas(count: UInt32) {
    let draw = Record.drawn(
      segment: 1,
      [
        .init(message: 5, offset: 8, size: 48, sentSecond: 7),
        .init(message: 6, offset: 64, size: 48, sentSecond: 7),
      ])
    var bytes = encoded(
      Entry(queue: QueueID(1), time: Timestamp(milliseconds: 1), record: draw))
    bytes.replaceSubrange(20..<24, with: (0..<4).map { UInt8(count >> (8 * UInt32($0)) & 255) })
    #expect(throws: RecordError.self) { try decoded(bytes) }
  }

  @Test func sizeCountsBodyAndAttributesAlone() {
    let attribute = MessageAttribute(name: "k", type: "String", value: .string("x"))
    #expect(MessageContent(body: [1, 2], attributes: [attribute]).countedSize == 10)
    let extras = MessageContent(body: [1], groupID: "g", traceHeader: "t", senderID: "s")
    #expect(extras.countedSize == 1)
  }

  @Test func idsAreVersion4AndInLowerCase() {
    let id = MessageID(randomHigh: .max, randomLow: .max)
    #expect(id.description == "ffffffff-ffff-4fff-bfff-ffffffffffff")
    let zero = MessageID(randomHigh: 0, randomLow: 0)
    #expect(zero.description == "00000000-0000-4000-8000-000000000000")
  }
}

/// Records that fit their checksum but not the state: damage or another program's work.
@Suite struct RecordsThatDoNotFit {
  private func refused(_ record: Record, queue: UInt32 = 1) throws {
    var machine = Machine()
    let queueID = try machine.create()
    try machine.send(queueID)
    let entry = Entry(queue: QueueID(queue), time: machine.state.time, record: record)
    #expect(throws: RecordError.self) { try machine.apply(entry) }
  }

  @Test func aQueueThatDoesNotExist() throws { try refused(.purged, queue: 9) }

  @Test func aQueueCreatedTwice() throws {
    try refused(.queueCreated(name: "other", settings: QueueSettings()))
    try refused(.queueCreated(name: "q", settings: QueueSettings()), queue: 2)
  }

  @Test func aMessageThatIsNotThere() throws {
    for slot in [UInt32(0), 1, 70_000, .max] {
      let message: UInt64 = slot == 0 ? 99 : 3
      let deadline = Timestamp(milliseconds: .max)
      try refused(.deleted(message: message, slot: slot))
      try refused(.leased(message: message, slot: slot, deadline: deadline))
      try refused(.leaseChanged(message: message, slot: slot, deadline: deadline))
    }
  }

  @Test func aChangeOfALeaseThatNeverWas() throws {
    try refused(.leaseChanged(message: 3, slot: 0, deadline: Timestamp(milliseconds: .max)))
  }

  @Test func theLastNumberOfAQueue() throws {
    try refused(.queueCreated(name: "other", settings: QueueSettings()), queue: .max)
    var machine = Machine()
    let entry = Entry(
      queue: QueueID(.max - 1), time: machine.state.time,
      record: .queueCreated(name: "other", settings: QueueSettings()))
    try machine.apply(entry)
    #expect(throws: Refusal.outOfQueueNumbers) { try machine.create() }
  }

  /// A record's settings are taken as they are; nothing may trap on them later.
  @Test func aSizeLimitBelowZeroIsHashed() throws {
    var machine = Machine()
    let entry = Entry(
      queue: QueueID(1), time: machine.state.time,
      record: .queueCreated(name: "q", settings: QueueSettings(maximumMessageBytes: -1)))
    try machine.apply(entry)
    let hash = machine.state.stateHash()
    #expect(hash != State().stateHash())
  }

  /// Random records, most of them nonsense: each is refused or leaves a sound state.
  @Test(arguments: 0..<20) func hostileRecordsNeverTrap(seed: Int) {
    let random = StableRandom(seed: UInt64(seed))
    let ends: [Int64] = [.min, -1, 0, 1, 1_700_000_000_000, .max - 1, .max]
    func time() -> Timestamp { Timestamp(milliseconds: ends[random.below(ends.count)]) }
    func settings() -> QueueSettings {
      QueueSettings(
        visibilityTimeout: .milliseconds(time().milliseconds),
        delay: .milliseconds(time().milliseconds),
        maximumMessageBytes: Int(time().milliseconds),
        retention: .milliseconds(time().milliseconds),
        receiveWait: .milliseconds(time().milliseconds))
    }
    var state = State()
    for lsn in UInt64(2)..<200 {
      let message = UInt64(random.below(Int(lsn) + 1))
      let slot = random.chance(1, of: 20) ? UInt32.max : UInt32(random.below(6))
      let size = 8 * random.below(9)
      let id = MessageID(randomHigh: lsn, randomLow: 0)
      let record: Record =
        switch random.below(16) {
        case 0: .queueCreated(name: "q\(random.below(4))", settings: settings())
        case 1: .queueChanged(settings: settings())
        case 2: random.chance(1, of: 4) ? .queueDeleted : .purged
        case 3: .expired(through: message)
        case 4: .deleted(message: message, slot: slot)
        case 5: .leaseChanged(message: message, slot: slot, deadline: time())
        case 6, 7: .leased(message: message, slot: slot, deadline: time())
        case 8, 9: .sent(.init(id: id, visibleAt: nil, isParked: true))
        case 10:
          .moved(
            .init(
              id: id, message: message, slot: random.chance(1, of: 2) ? slot : nil,
              isAgain: random.chance(1, of: 2)))
        case 11, 12:
          .drawn(
            segment: random.chance(1, of: 9) ? .max : UInt32(lsn / 32),
            (0..<random.below(4)).map {
              WaitingMessage(
                message: message + UInt64($0), offset: UInt32(size), size: UInt32(size),
                sentSecond: UInt32(random.below(3)))
            })
        case 13:
          .setAside(
            message: message, slot: random.chance(1, of: 2) ? slot : nil, size: UInt32(size))
        default: .sent(.init(id: id, visibleAt: random.chance(1, of: 2) ? time() : nil))
        }
      let queue = random.chance(1, of: 40) ? UInt32.max : UInt32(random.below(5))
      let entry = Entry(
        queue: QueueID(queue), time: random.chance(1, of: 50) ? time() : state.time,
        record: record)
      let before = state
      let result = Result { () throws(RecordError) in
        try state.apply(
          entry, lsn: lsn, position: (lsn / 32) << 32 | (lsn % 32) * 64,
          size: (entry.payloadSize() + 15) & ~7)
      }
      // Nobody goes on with a state that a record was refused by.
      if case .failure = result { state = before }
      #expect(state.brokenInvariant() == nil)
      _ = state.nextExpired()
      _ = state.nextTimer
    }
  }
}
