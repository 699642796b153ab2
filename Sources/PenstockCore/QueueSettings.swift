// SPDX-License-Identifier: Apache-2.0
internal import PenstockSystem

/// How a queue treats its messages. Durations count in whole milliseconds.
public struct QueueSettings: Hashable, Sendable {
  /// How long a received message stays hidden when the receive does not say.
  public var visibilityTimeout: Duration = .seconds(30)
  /// How long a new message stays hidden when the send does not say.
  public var delay: Duration = .zero
  /// Largest body plus attributes that a send may bring, in bytes.
  public var maximumMessageBytes: Int = 1_048_576
  /// How long a message is kept, counted from its send, in whatever state it is.
  public var retention: Duration = .seconds(345_600)
  /// How long a receive waits for a message when it does not say.
  public var receiveWait: Duration = .zero
  /// Whether messages of a group are delivered in the order of their sends, one lease at a time.
  /// Fixed when the queue is created.
  public var isFIFO = false
  /// FIFO: a send without a deduplication id repeats one with the same body.
  public var deduplicatesByContent = false
  /// FIFO: whether sends repeat each other within their group alone, not within the queue.
  public var deduplicatesByGroup = false
  /// FIFO: how long a send is remembered, counted from the first.
  public var deduplicationWindow: Duration = .seconds(300)
  /// FIFO: what the SQS API says of the scope of deduplication, and of its limits, which follow
  /// settings there without changing anything.
  public var showsGroupScope = false
  /// As `showsGroupScope`, of the limits.
  public var showsGroupLimit = false
  /// Name of the queue that takes messages which were received too often; empty for none. While
  /// there is no such queue, messages stay and are delivered.
  public var deadLetterQueue = ""
  /// A message that was received so often is moved to `deadLetterQueue` by the receive that would
  /// take it once more. At least 1 beside a dead-letter queue.
  public var maximumReceives = 0
  /// Names of the queues that may make this one their dead-letter queue; nil for all.
  public var deadLetterSources: [String]?
  /// Most messages the queue may hold, in whatever state; 0 for no limit.
  public var maximumMessages = 0
  /// Most bytes that the records of its messages may take; 0 for no limit.
  public var maximumBytes = 0
  /// Most messages that may be leased at a time; 0 for no limit.
  public var maximumLeased = 0
  /// A message is received as though it had been sent so much earlier for each of its priority.
  public var priorityStep: Duration = .seconds(60)
  /// Standard: whether messages that name groups are kept by group, in memory, so that a group with
  /// many of them does not hold up the others. Counts for messages sent from then on.
  public var isFair = true
  /// What the SQS API says beside `deadLetterSources` of nil, which it can say in two ways.
  public var showsAllowAll = false
  /// What the host says of the queue, by keys of its own. Kept, and of no effect here.
  public var tags: [String: String] = [:]
  /// Who may do what with the queue, in words of the host. Kept, and of no effect here.
  public var policy = ""
  /// Name of the key of `StoreOptions.cipher` that seals bodies and attributes of what is sent from
  /// then on; empty for none. What is there stays as it is.
  public var encryptionKey = ""
  /// How long a cipher may go on with one data key.
  public var dataKeyReuse: Duration = .seconds(300)
  /// What the SQS API says of encryption while `encryptionKey` is empty, and nothing does.
  public var showsEncryption = ""

  /// The defaults, but for what is named. `with` sets the others.
  public init(
    visibilityTimeout: Duration = .seconds(30), delay: Duration = .zero,
    maximumMessageBytes: Int = 1_048_576, retention: Duration = .seconds(345_600),
    receiveWait: Duration = .zero, isFIFO: Bool = false, with set: (inout Self) -> Void = { _ in }
  ) {
    self.visibilityTimeout = visibilityTimeout
    self.delay = delay
    self.maximumMessageBytes = maximumMessageBytes
    self.retention = retention
    self.receiveWait = receiveWait
    self.isFIFO = isFIFO
    set(&self)
  }
}

/// The settings by name, in the order in which they are compared. Their numbers, from 0 on, stand
/// in the log: new ones go to the end. `Docs/format.md` has the list.
public enum QueueSetting: UInt32, Hashable, Sendable, CaseIterable {
  case visibilityTimeout, delay, maximumMessageBytes, retention, receiveWait, isFIFO
  case deduplicatesByContent, deduplicatesByGroup, showsGroupScope, showsGroupLimit
  case deduplicationWindow, deadLetterQueue, maximumReceives, deadLetterSources
  case maximumMessages, maximumBytes, maximumLeased, priorityStep, showsAllowAll, isFair
  case tags, policy, encryptionKey, dataKeyReuse, showsEncryption

  typealias Path = PartialKeyPath<QueueSettings> & Sendable

  /// By number.
  static let paths: [any Path] = [
    \.visibilityTimeout, \.delay, \.maximumMessageBytes, \.retention, \.receiveWait, \.isFIFO,
    \.deduplicatesByContent, \.deduplicatesByGroup, \.showsGroupScope, \.showsGroupLimit,
    \.deduplicationWindow, \.deadLetterQueue, \.maximumReceives, \.deadLetterSources,
    \.maximumMessages, \.maximumBytes, \.maximumLeased, \.priorityStep, \.showsAllowAll, \.isFair,
    \.tags, \.policy, \.encryptionKey, \.dataKeyReuse, \.showsEncryption,
  ]
  var path: any Path { Self.paths[Int(rawValue)] }

  /// Every queue's record holds these; of the others those that are not at their default.
  package static let always = 5

  init?(_ path: AnyKeyPath) {
    guard let setting = Self.allCases.first(where: { $0.path == path }) else { return nil }
    self = setting
  }
}

/// Some settings; the others stay as they are, or at their default when a queue is created.
///
///     QueueSettingsChange { $0.retention = .seconds(3600) }
@dynamicMemberLookup
public struct QueueSettingsChange: Hashable, Sendable {
  private var values: [QueueSetting: QueueSettings.Value] = [:]

  /// The settings that the closure sets.
  public init(_ set: (inout Self) -> Void = { _ in }) { set(&self) }

  /// Every setting of `settings`.
  public init(_ settings: QueueSettings) {
    for setting in QueueSetting.allCases { values[setting] = settings[setting] }
  }

  /// A setting; nil when it is not to be changed.
  public subscript<Value>(dynamicMember path: WritableKeyPath<QueueSettings, Value>) -> Value? {
    get {
      guard let setting = QueueSetting(path), let value = values[setting] else { return nil }
      var settings = QueueSettings()
      settings[setting] = value
      return settings[keyPath: path]
    }
    set {
      guard let setting = QueueSetting(path) else { return }
      var settings = QueueSettings()
      if let newValue { settings[keyPath: path] = newValue }
      values[setting] = newValue == nil ? nil : settings[setting]
    }
  }

  /// The settings with this change made.
  public func applied(to settings: QueueSettings) -> QueueSettings {
    var result = settings
    for (setting, value) in values { result[setting] = value }
    return result
  }

  /// The first setting that differs.
  func firstDifference(from settings: QueueSettings) -> QueueSetting? {
    QueueSetting.allCases.first { values[$0] ?? settings[$0] != settings[$0] }
  }

  /// The first setting that is a number and less than zero.
  package var firstNegative: QueueSetting? {
    QueueSetting.allCases.first {
      if case .number(let number) = values[$0] { number < 0 } else { false }
    }
  }
}

extension QueueSettings {
  /// A setting as it is stored: durations in milliseconds, truth as the number 0 or 1.
  package enum Value: Hashable, Sendable {
    case number(Int64)
    case flag(Bool)
    case text(String)
    case names([String]?)
    case texts([String: String])
  }

  package subscript(setting: QueueSetting) -> Value {
    get {
      switch setting.path {
      case let path as KeyPath<Self, Duration>: .number(self[keyPath: path].wholeMilliseconds)
      case let path as KeyPath<Self, Int>: .number(Int64(self[keyPath: path]))
      case let path as KeyPath<Self, Bool>: .flag(self[keyPath: path])
      case let path as KeyPath<Self, String>: .text(self[keyPath: path])
      case let path as KeyPath<Self, [String]?>: .names(self[keyPath: path])
      case let path as KeyPath<Self, [String: String]>: .texts(self[keyPath: path])
      default: .number(0)
      }
    }
    set {
      func set<T>(_ value: T) {
        if let path = setting.path as? WritableKeyPath<Self, T> { self[keyPath: path] = value }
      }
      switch newValue {
      case .number(let value):
        set(Duration.milliseconds(value))
        set(Int(value))
      case .flag(let value): set(value)
      case .text(let value): set(value)
      case .names(let value): set(value)
      case .texts(let value): set(value)
      }
    }
  }

  /// The settings behind the common ones that are not at their default.
  package var more: [QueueSetting] {
    let standard = QueueSettings()
    return QueueSetting.allCases.dropFirst(QueueSetting.always).filter { self[$0] != standard[$0] }
  }

  var hasMore: Bool { !more.isEmpty }
  package var encodedSize: Int {
    8 * QueueSetting.always
      + (hasMore ? more.reduce(4) { $0 + 8 + self[$1].bytes.count } : 0)
  }

  /// Five times eight bytes, and the others behind them if there are any.
  func encode(into buffer: CommitBuffer) {
    encodeCommon(into: buffer)
    if hasMore { encodeMore(into: buffer) }
  }

  func encodeCommon(into buffer: CommitBuffer) {
    for setting in QueueSetting.allCases.prefix(QueueSetting.always) {
      buffer.put(self[setting].bytes)
    }
  }

  /// How many there are, then each with its number, the length of its value, and its value.
  func encodeMore(into buffer: CommitBuffer) {
    let more = more
    buffer.put(UInt32(more.count))
    for setting in more {
      let bytes = self[setting].bytes
      buffer.put(setting.rawValue)
      buffer.put(UInt32(bytes.count))
      buffer.put(bytes)
    }
  }

  init(
    _ cursor: inout ByteCursor, _ span: borrowing RawSpan, hasMore: Bool = false
  ) throws(BytesTooShort) {
    for setting in QueueSetting.allCases.prefix(QueueSetting.always) {
      self[setting] = .number(try cursor.i64(span))
    }
    if hasMore { try decodeMore(&cursor, span) }
  }

  mutating func decodeMore(
    _ cursor: inout ByteCursor, _ span: borrowing RawSpan
  ) throws(BytesTooShort) {
    let standard = QueueSettings()
    var last = UInt32(QueueSetting.always - 1)
    for _ in 0..<(try cursor.u32(span)) {
      let number = try cursor.u32(span)
      let end = Int(try cursor.u32(span)) + cursor.offset
      guard number > last, let setting = QueueSetting(rawValue: number), end <= span.byteCount
      else { throw BytesTooShort() }
      last = number
      let start = cursor.offset
      func text() throws(BytesTooShort) -> String { try cursor.text(Int(cursor.u32(span)), span) }
      let value: Value
      switch standard[setting] {
      case .number: value = .number(try cursor.i64(span))
      case .flag: value = .flag(try cursor.u64(span) == 1)
      case .text: value = .text(try cursor.text(end - cursor.offset, span))
      case .names:
        var names: [String] = []
        while cursor.offset < end { names.append(try text()) }
        value = .names(names)
      case .texts:
        var texts: [String: String] = [:]
        while cursor.offset < end { texts[try text()] = try text() }
        value = .texts(texts)
      }
      self[setting] = value
      // Only what is not at its default is written, and each value in one way.
      guard cursor.offset == end, value != standard[setting],
        value.bytes == span.extracting(start..<end).array
      else { throw BytesTooShort() }
    }
  }
}

extension QueueSettings.Value {
  var bytes: [UInt8] {
    func bytes(_ number: some FixedWidthInteger) -> [UInt8] {
      (0..<number.bitWidth / 8).map { UInt8(truncatingIfNeeded: number >> (8 * $0)) }
    }
    switch self {
    case .number(let number): return bytes(number)
    case .flag(let isOn): return bytes(Int64(isOn ? 1 : 0))
    case .text(let text): return Array(text.utf8)
    case .names(let names):
      return (names ?? []).flatMap { bytes(UInt32($0.utf8.count)) + Array($0.utf8) }
    case .texts(let texts):
      return texts.sorted { $0.key.utf8.lexicographicallyPrecedes($1.key.utf8) }
        .flatMap { [$0.key, $0.value] }
        .flatMap { bytes(UInt32($0.utf8.count)) + Array($0.utf8) }
    }
  }
}
