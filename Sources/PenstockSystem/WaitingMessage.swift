// SPDX-License-Identifier: Apache-2.0

/// Where a waiting message is found; its segment is known from elsewhere.
public struct WaitingMessage: Hashable, Sendable {
  /// LSN of the send.
  public var message: UInt64
  /// Of the record in its segment file, in bytes.
  public var offset: UInt32
  /// Of the record with its header and padding, in bytes.
  public var size: UInt32
  /// When it was sent, in whole seconds since 1970, rounded up.
  public var sentSecond: UInt32
  /// A message that waits in a segment.
  public init(message: UInt64, offset: UInt32, size: UInt32, sentSecond: UInt32) {
    self.message = message
    self.offset = offset
    self.size = size
    self.sentSecond = sentSecond
  }
}
