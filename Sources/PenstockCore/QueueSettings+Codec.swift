// SPDX-License-Identifier: Apache-2.0
internal import PenstockSystem

extension QueueSettings {
  var encodedSize: Int { isFIFO ? 56 : 40 }

  /// Five times eight bytes: four durations in milliseconds around the size limit in bytes. A FIFO
  /// queue adds its window in milliseconds, flags in four bytes, and four zeros.
  func encode(into buffer: CommitBuffer) {
    encodeCommon(into: buffer)
    if isFIFO { encodeFIFO(into: buffer) }
  }

  func encodeCommon(into buffer: CommitBuffer) {
    buffer.put(visibilityTimeout.wholeMilliseconds)
    buffer.put(delay.wholeMilliseconds)
    buffer.put(Int64(maximumMessageBytes))
    buffer.put(retention.wholeMilliseconds)
    buffer.put(receiveWait.wholeMilliseconds)
  }

  func encodeFIFO(into buffer: CommitBuffer) {
    buffer.put(deduplicationWindow.wholeMilliseconds)
    let flags = [deduplicatesByContent, deduplicatesByGroup, showsGroupScope, showsGroupLimit]
    buffer.put(flags.reversed().reduce(UInt32(0)) { $0 << 1 | ($1 ? 1 : 0) })
    buffer.put(UInt32(0))
  }

  mutating func decodeFIFO(
    _ cursor: inout ByteCursor, _ span: borrowing RawSpan
  ) throws(BytesTooShort) {
    isFIFO = true
    deduplicationWindow = .milliseconds(try cursor.i64(span))
    let flags = try cursor.u32(span)
    guard flags < 16, try cursor.u32(span) == 0 else { throw BytesTooShort() }
    deduplicatesByContent = flags & 1 != 0
    deduplicatesByGroup = flags & 2 != 0
    showsGroupScope = flags & 4 != 0
    showsGroupLimit = flags & 8 != 0
  }

  init(
    _ cursor: inout ByteCursor, _ span: borrowing RawSpan, isFIFO: Bool = false
  ) throws(BytesTooShort) {
    self.init()
    visibilityTimeout = .milliseconds(try cursor.i64(span))
    delay = .milliseconds(try cursor.i64(span))
    maximumMessageBytes = Int(try cursor.i64(span))
    retention = .milliseconds(try cursor.i64(span))
    receiveWait = .milliseconds(try cursor.i64(span))
    if isFIFO { try decodeFIFO(&cursor, span) }
  }
}
