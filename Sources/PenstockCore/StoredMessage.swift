// SPDX-License-Identifier: Apache-2.0
package import PenstockSystem

/// A whole message as the log holds it.
public struct StoredMessage: Hashable, Sendable {
  /// The message's id.
  public var id: MessageID
  /// The queue that it was sent or last copied to.
  public var queue: QueueID
  /// When it was sent.
  public var sentAt: Timestamp
  /// What was sent.
  public var content: MessageContent

  /// Reads the payload of a sent record, or of a copy.
  public init(_ span: borrowing RawSpan) throws(RecordError) {
    let entry = try Entry(span)
    let start: Int
    (id, start) = try entry.held
    queue = entry.queue
    sentAt = entry.time
    do {
      var cursor = ByteCursor(start)
      let extras = Entry.hasExtras(span) ? try MessageContent.Extras(&cursor, span) : nil
      guard extras?.sealedWith == nil || extras?.attributes == [] else { throw BytesTooShort() }
      content = MessageContent(
        body: try cursor.bytes(span.byteCount - cursor.offset, span), extras)
    } catch {
      throw RecordError(description: "a message's attributes are damaged")
    }
  }
}

extension Entry {
  /// The most bytes that stand before the content of what is sent.
  package static func largestHead(hasGroup: Bool) -> Int { prefixSize + (hasGroup ? 56 : 24) }

  static func contentOffset(_ sent: Record.Sent) -> Int {
    prefixSize + 16 + (sent.visibleAt == nil ? 0 : 8) + (sent.group == nil ? 0 : 16)
      + (sent.deduplication == nil ? 0 : 16)
  }

  /// The record of a copy of the message in `payload`. The payload's bytes from `content` on follow
  /// it.
  ///
  /// - Parameter slot: nil for a message that is parked.
  public static func copy(
    of payload: borrowing RawSpan, message: UInt64, slot: UInt32?
  ) throws(RecordError) -> (entry: Entry, content: Int) {
    var entry = try Entry(payload)
    let (id, start) = try entry.held
    let isAgain = if case .moved = entry.record { true } else { false }
    entry.record = .moved(
      .init(
        id: id, message: message, slot: slot, isAgain: isAgain, hasExtras: hasExtras(payload)))
    return (entry, start)
  }

  /// Id of the message in the payload that this was read from, and where its content begins there.
  fileprivate var held: (id: MessageID, content: Int) {
    get throws(RecordError) {
      switch record {
      case .sent(let sent): return (sent.id, Self.contentOffset(sent))
      case .moved(let moved): return (moved.id, payloadSize())
      default: throw RecordError(description: "there is another record where a message should be")
      }
    }
  }

  fileprivate static func hasExtras(_ payload: borrowing RawSpan) -> Bool {
    var cursor = ByteCursor(1)
    do { return try cursor.u8(payload) & flagExtras != 0 } catch { return false }
  }
}

extension Duration {
  /// Whole milliseconds, held at the ends of the range.
  package var wholeMilliseconds: Int64 {
    let (seconds, attoseconds) = components
    let (product, overflow) = seconds.multipliedReportingOverflow(by: 1000)
    if overflow { return seconds < 0 ? .min : .max }
    let (sum, over) = product.addingReportingOverflow(attoseconds / 1_000_000_000_000_000)
    return over ? (seconds < 0 ? .min : .max) : sum
  }
}

/// What is stored between a message's header and its body: tag 1, zeros 3, length 4, value; the
/// whole preceded by its length in four bytes.
extension MessageContent.Extras {
  private enum Tag: UInt8 {
    case groupID = 1
    case traceHeader = 2
    case senderID = 3
    case stringAttribute = 4
    case binaryAttribute = 5
    case deduplicationID = 6
    case sealedWith = 7
  }

  /// Bytes with their length, 0 when there are none.
  var size: Int {
    func size(_ text: String?) -> Int { text.map { 8 + $0.utf8.count } ?? 0 }
    var size =
      size(groupID) + size(deduplicationID) + size(traceHeader) + size(senderID)
      + size(sealedWith)
    for attribute in attributes { size += 8 + attribute.storedSize }
    return size == 0 ? 0 : size + 4
  }

  func put(_ length: Int, into buffer: CommitBuffer) {
    buffer.put(UInt32(length))
    func head(_ tag: Tag, _ length: Int) {
      buffer.put(UInt32(tag.rawValue))
      buffer.put(UInt32(length))
    }
    func put(_ tag: Tag, _ text: String?) {
      guard let text else { return }
      head(tag, text.utf8.count)
      buffer.put(text)
    }
    put(.groupID, groupID)
    put(.deduplicationID, deduplicationID)
    put(.traceHeader, traceHeader)
    put(.senderID, senderID)
    put(.sealedWith, sealedWith)
    for attribute in attributes {
      let isText = if case .string = attribute.value { true } else { false }
      head(isText ? .stringAttribute : .binaryAttribute, attribute.storedSize)
      buffer.put(UInt32(attribute.name.utf8.count))
      buffer.put(UInt32(attribute.type.utf8.count))
      buffer.put(attribute.name)
      buffer.put(attribute.type)
      switch attribute.value {
      case .string(let text): buffer.put(text)
      case .binary(let bytes): buffer.put(bytes)
      }
    }
  }

  init(_ cursor: inout ByteCursor, _ span: borrowing RawSpan) throws {
    let length = Int(try cursor.u32(span))
    let end = cursor.offset + length
    guard end <= span.byteCount else { throw BytesTooShort() }
    while cursor.offset < end {
      let number = try cursor.u32(span)
      let length = Int(try cursor.u32(span))
      guard let tag = UInt8(exactly: number).flatMap(Tag.init(rawValue:)),
        cursor.offset + length <= end
      else { throw BytesTooShort() }
      switch tag {
      case .groupID: groupID = try cursor.text(length, span)
      case .deduplicationID: deduplicationID = try cursor.text(length, span)
      case .traceHeader: traceHeader = try cursor.text(length, span)
      case .senderID: senderID = try cursor.text(length, span)
      case .sealedWith: sealedWith = try cursor.text(length, span)
      case .stringAttribute, .binaryAttribute:
        let nameLength = Int(try cursor.u32(span))
        let typeLength = Int(try cursor.u32(span))
        let name = try cursor.text(nameLength, span)
        let type = try cursor.text(typeLength, span)
        let rest = length - 8 - nameLength - typeLength
        let value: MessageAttribute.Value =
          tag == .stringAttribute
          ? .string(try cursor.text(rest, span)) : .binary(try cursor.bytes(rest, span))
        attributes.append(MessageAttribute(name: name, type: type, value: value))
      }
    }
  }
}

extension MessageContent {
  /// Bytes that are stored of it.
  public var storedSize: Int { body.count + (rest?.extras.size ?? 0) }

  func put(into buffer: CommitBuffer) {
    if let rest { rest.extras.put(rest.extras.size - 4, into: buffer) }
    buffer.put(body)
  }

  /// What a cipher seals: attributes as they are stored, with their length before them, and body.
  package var plain: [UInt8] {
    let bare = Extras(attributes: attributes)
    let buffer = CommitBuffer(capacity: max(4, bare.size) + body.count)
    bare.put(max(4, bare.size) - 4, into: buffer)
    buffer.put(body)
    return buffer.withBytes { $0.array }
  }

  /// The content that a cipher opened; nil when the bytes are none.
  package func opened(_ plain: [UInt8]) -> MessageContent? {
    plain.withRaw { span in
      var cursor = ByteCursor()
      do {
        let bare = try Extras(&cursor, span)
        var content = self
        content.body = try cursor.bytes(span.byteCount - cursor.offset, span)
        (content.attributes, content.sealedWith) = (bare.attributes, nil)
        return content
      } catch { return nil }
    }
  }

  /// Bytes that count towards a queue's size limit: body, and name, type and value of attributes.
  public var countedSize: Int {
    guard let rest else { return body.count }
    return rest.extras.attributes.reduce(body.count) {
      $0 + $1.name.utf8.count + $1.type.utf8.count + $1.valueSize
    }
  }
}

extension Span<SendEntry> {
  /// Bytes that are stored of one's content, and those that count towards a queue's limit.
  package func sizes(_ index: Int) -> (stored: Int, counted: Int) {
    if self[index].content.rest == nil {
      return (self[index].content.body.count, self[index].content.body.count)
    }
    return (self[index].content.storedSize, self[index].content.countedSize)
  }

  /// Name of the key that one is sealed with, empty without.
  package func key(_ index: Int) -> String { self[index].content.sealedWith ?? "" }

  /// Puts the record that sends one.
  package func encode(_ index: Int, _ record: Entry, into buffer: CommitBuffer) {
    let hasExtras = self[index].content.rest != nil
    record.encode(hasExtras: hasExtras, into: buffer)
    if hasExtras { return self[index].content.put(into: buffer) }
    // unsafe: whoever lends the span keeps the bytes.
    let body = unsafe self[index].content.body.withUnsafeBytes { unsafe $0 }
    unsafe buffer.put(RawSpan(_unsafeBytes: body))
  }
}

extension MessageAttribute {
  var valueSize: Int {
    switch value {
    case .string(let text): text.utf8.count
    case .binary(let bytes): bytes.count
    }
  }
  var storedSize: Int { 8 + name.utf8.count + type.utf8.count + valueSize }
}
