// SPDX-License-Identifier: Apache-2.0

/// Identity of one incarnation of a queue. Never reused: a queue that is deleted and created again
/// under its old name has another id, so handles of the old one are dead.
public struct QueueID: Hashable, Comparable, Sendable {
  /// From 1 on; numbers of one store.
  public var value: UInt32
  /// The queue of this number.
  public init(_ value: UInt32) { self.value = value }
  public static func < (a: QueueID, b: QueueID) -> Bool { a.value < b.value }
}

/// Milliseconds since 1970-01-01 UTC.
public struct Timestamp: Hashable, Comparable, Sendable {
  /// Since 1970-01-01 UTC; before it they are negative.
  public var milliseconds: Int64
  /// The time so long after 1970.
  public init(milliseconds: Int64) { self.milliseconds = milliseconds }
  public static func < (a: Timestamp, b: Timestamp) -> Bool { a.milliseconds < b.milliseconds }

  /// The time `milliseconds` later, held at the ends of the range instead of overflowing.
  package func adding(_ milliseconds: Int64) -> Timestamp {
    let (sum, overflow) = self.milliseconds.addingReportingOverflow(milliseconds)
    return Timestamp(milliseconds: overflow ? (milliseconds < 0 ? .min : .max) : sum)
  }
}

/// Identity of a message: a random UUID (version 4), kept for as long as the message lives.
public struct MessageID: Hashable, Sendable, CustomStringConvertible {
  /// The first eight bytes, most significant first.
  public var high: UInt64
  /// The last eight bytes.
  public var low: UInt64

  /// Takes 128 random bits and sets the version and variant of RFC 9562 in them.
  public init(randomHigh: UInt64, randomLow: UInt64) {
    high = (randomHigh & ~0xf000) | 0x4000
    low = (randomLow & ~(0b11 << 62)) | (0b10 << 62)
  }

  package init(high: UInt64, low: UInt64) {
    self.high = high
    self.low = low
  }

  /// Lower case with hyphens.
  public var description: String {
    // unsafe: as many bytes are written as were asked for.
    unsafe String(unsafeUninitializedCapacity: 36) { text in
      var place = 0
      for nibble in 0..<32 as Range<UInt64> {
        if nibble & 3 == 0, (8...20).contains(nibble) {
          unsafe text[place] = UInt8(ascii: "-")
          place += 1
        }
        let half = nibble < 16 ? high : low
        let value = UInt8(truncatingIfNeeded: half >> (60 - 4 * (nibble & 15))) & 15
        unsafe text[place] = value < 10 ? 0x30 + value : 0x57 + value
        place += 1
      }
      return place
    }
  }
}

/// A typed name-value pair that travels with a message. The engine stores it and looks at none of
/// it.
public struct MessageAttribute: Hashable, Sendable {
  /// Text or bytes.
  public enum Value: Hashable, Sendable {
    case string(String)
    case binary([UInt8])
  }
  /// Unique in a message.
  public var name: String
  /// For example `String`, `Number.int` or `Binary.png`.
  public var type: String
  /// What a receiver gets.
  public var value: Value

  /// An attribute; nothing is checked here.
  public init(name: String, type: String, value: Value) {
    self.name = name
    self.type = type
    self.value = value
  }
}

/// 128 bits that stand for a text: a keyed hash, so that nobody can find two texts with the same.
public struct TextHash: Hashable, Sendable {
  /// The first half.
  public var high: UInt64
  /// The second half.
  public var low: UInt64
  /// A hash of these halves.
  public init(high: UInt64, low: UInt64) {
    self.high = high
    self.low = low
  }
}

/// What a sender hands over: a body and what belongs to it.
public struct MessageContent: Hashable, Sendable {
  /// What it says: any bytes, also none.
  public var body: [UInt8]
  /// All else, behind one reference that most do not have: a content is copied often.
  private(set) var rest: Rest?

  struct Extras: Hashable, Sendable {
    var attributes: [MessageAttribute] = []
    var groupID: String?
    var deduplicationID: String?
    var traceHeader: String?
    var senderID: String?
    var sealedWith: String?
  }
  final class Rest: Hashable, Sendable {
    let extras: Extras
    init(_ extras: Extras) { self.extras = extras }
    static func == (a: Rest, b: Rest) -> Bool { a.extras == b.extras }
    func hash(into hasher: inout Hasher) { extras.hash(into: &hasher) }
  }

  private var extras: Extras {
    get { rest?.extras ?? Extras() }
    set { rest = newValue == Extras() ? nil : Rest(newValue) }
  }

  /// In the order given by the sender.
  public var attributes: [MessageAttribute] {
    get { rest?.extras.attributes ?? [] }
    set { extras.attributes = newValue }
  }
  /// The message's group. A FIFO queue needs one; in a standard queue it only travels with it.
  public var groupID: String? {
    get { rest?.extras.groupID }
    set { extras.groupID = newValue }
  }
  /// What repetitions of the send have in common, for a FIFO queue.
  public var deduplicationID: String? {
    get { rest?.extras.deduplicationID }
    set { extras.deduplicationID = newValue }
  }
  /// Travels with the message, for tracing.
  public var traceHeader: String? {
    get { rest?.extras.traceHeader }
    set { extras.traceHeader = newValue }
  }
  /// Who sent it, as the host knows its clients.
  public var senderID: String? {
    get { rest?.extras.senderID }
    set { extras.senderID = newValue }
  }
  /// Name of the key that body and attributes are sealed with. Nil in what is sent and received;
  /// a look at a message that cannot be opened shows it, without body and attributes.
  public package(set) var sealedWith: String? {
    get { rest?.extras.sealedWith }
    set { if newValue != sealedWith { extras.sealedWith = newValue } }
  }

  /// Content of a message; nothing is checked here.
  public init(
    body: [UInt8], attributes: [MessageAttribute] = [], groupID: String? = nil,
    deduplicationID: String? = nil, traceHeader: String? = nil, senderID: String? = nil
  ) {
    self.body = body
    extras = Extras(
      attributes: attributes, groupID: groupID, deduplicationID: deduplicationID,
      traceHeader: traceHeader, senderID: senderID)
  }

  init(body: [UInt8], _ extras: Extras?) {
    self.body = body
    if let extras { self.extras = extras }
  }
}

/// One message to send.
public struct SendEntry: Sendable {
  /// What to send.
  public var content: MessageContent
  /// How long to hide it at first; nil takes the queue's delay.
  public var delay: Duration?
  /// In a standard queue: how many of the queue's `priorityStep` earlier than it was sent it counts
  /// as sent, for the order of receives. So what is urgent comes first, and nothing waits for ever.
  public var priority: UInt8

  /// A message to send; nothing is checked here.
  public init(_ content: MessageContent, delay: Duration? = nil, priority: UInt8 = 0) {
    self.content = content
    self.delay = delay
    self.priority = priority
  }
}

/// Messages of a queue by state. The three are disjoint and exact.
public struct QueueCounts: Hashable, Sendable {
  /// Can be received now.
  public var visible = 0
  /// Received and hidden until their lease ends.
  public var leased = 0
  /// Never received and hidden until their delay ends.
  public var delayed = 0
  /// All messages of the queue.
  public var total: Int { visible + leased + delayed }
  /// No messages.
  public init() {}
}

/// What a queue is at one moment.
public struct QueueDescription: Hashable, Sendable {
  /// Names the queue for as long as it is there.
  public var id: QueueID
  /// Unique among the queues that are there.
  public var name: String
  /// How it treats its messages.
  public var settings: QueueSettings
  /// When it was created.
  public var createdAt: Timestamp
  /// When settings other than tags last changed; `createdAt` if never.
  public var changedAt: Timestamp
  /// Messages in it.
  public var counts: QueueCounts
  /// Damaged messages that were taken out of the queue.
  public var setAside: UInt64
}

/// Names one lease of one message; what a receipt handle carries.
public struct LeaseHandle: Hashable, Sendable {
  /// The queue that the message was received from.
  public var queue: QueueID
  /// Place of the message in the table of active messages.
  public var slot: UInt32
  /// LSN of the message's send record: its identity within the store.
  public var message: UInt64
  /// LSN of the lease record. A later lease of the same message has a greater one.
  public var token: UInt64

  /// A handle; whether it names a lease is asked when it is used.
  public init(queue: QueueID, slot: UInt32, message: UInt64, token: UInt64) {
    self.queue = queue
    self.slot = slot
    self.message = message
    self.token = token
  }
}
