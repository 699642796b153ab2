// SPDX-License-Identifier: Apache-2.0
public import PenstockCore

/// Turns values into the bytes of a message's body, and back.
public protocol PayloadCodec<Value>: Sendable {
  associatedtype Value: Sendable
  /// - Throws: whatever it likes; nothing is sent then.
  func encode(_ value: Value) throws -> [UInt8]
  /// - Throws: when the bytes are no value. Whoever receives sees `.undecodablePayload`.
  func decode(_ bytes: [UInt8]) throws -> Value
}

/// Bodies as they are.
public struct BytesCodec: PayloadCodec {
  /// The codec.
  public init() {}
  public func encode(_ value: [UInt8]) -> [UInt8] { value }
  public func decode(_ bytes: [UInt8]) -> [UInt8] { bytes }
}

/// Text as UTF-8. Bytes that are none are refused, not replaced.
public struct TextCodec: PayloadCodec {
  /// The codec.
  public init() {}
  public func encode(_ value: String) -> [UInt8] { Array(value.utf8) }

  public func decode(_ bytes: [UInt8]) throws -> String {
    guard let text = String(validating: bytes, as: UTF8.self) else {
      throw PenstockError(.undecodablePayload, "it is no UTF-8")
    }
    return text
  }
}

/// What a consumer does with a message that cannot be decoded. It is never deleted.
public enum UndecodablePolicy: Sendable, Hashable {
  /// It is given back as if the handler had thrown `.undecodablePayload`: after a delay, which
  /// `retryDelay` chooses, it comes again.
  case released
  /// It is given back, and `consume` drains and throws `.undecodablePayload`.
  case thrown
}

/// A queue whose messages are values of one type.
public struct TypedQueue<Codec: PayloadCodec>: Sendable {
  /// The queue that it is a view of.
  public let queue: Queue
  /// What makes bodies of values.
  public let codec: Codec

  /// Sends one value; see `Queue.send`.
  ///
  /// - Durability: on return the message is as durable as `Store.durability` says.
  /// - Throws: what the codec throws; else a `PenstockError`.
  @discardableResult
  public func send(
    _ value: Codec.Value, attributes: [MessageAttribute] = [], delay: Duration? = nil,
    group: String? = nil, deduplicationID: String? = nil
  ) async throws -> MessageID {
    try await queue.send(
      codec.encode(value), attributes: attributes, delay: delay, group: group,
      deduplicationID: deduplicationID)
  }

  /// Receives values; see `Queue.receive`. One that cannot be decoded is among them, and throws
  /// when its value is asked for: its lease is the caller's, to release, keep or delete.
  public func receive(
    maximum: Int = 1, wait: Duration? = nil, visibilityTimeout: Duration? = nil
  ) async throws(PenstockError) -> [TypedLease<Codec.Value>] {
    let leases = try await queue.receive(
      maximum: maximum, wait: wait, visibilityTimeout: visibilityTimeout)
    return leases.map { TypedLease(lease: $0, payload: payload(of: $0)) }
  }

  /// Handles values as they come; see `Queue.consume`. `undecodable` says what becomes of a message
  /// that is no value; the handler is not called for it.
  ///
  /// - Throws: as `Queue.consume`, and `.undecodablePayload` if asked for.
  public func consume(
    maxConcurrent: Int = 16, visibilityTimeout: Duration? = nil,
    drainLimit: Duration? = .seconds(30), undecodable: UndecodablePolicy = .released,
    retryDelay: @escaping RetryDelay = Queue.backoff,
    _ handler: @escaping @Sendable (Codec.Value, Lease) async throws -> Void
  ) async throws(PenstockError) {
    let consumer = try Consumer(
      queue, maxConcurrent, visibilityTimeout, drainLimit, retryDelay
    ) { lease, consumer in
      let payload = payload(of: lease)
      if case .failure(let error) = payload, undecodable == .thrown { consumer.stop(error) }
      try await handler(payload.get(), lease)
    }
    try await consumer.run()
  }

  private func payload(of lease: Lease) -> Result<Codec.Value, PenstockError> {
    do { return .success(try codec.decode(lease.body)) } catch {
      let place = "message with LSN \(lease.message.sequenceNumber) of queue \(queue.name)"
      return .failure(PenstockError(.undecodablePayload, "\(place) cannot be decoded: \(error)"))
    }
  }
}

/// A received value with its lease.
public struct TypedLease<Value: Sendable>: Sendable {
  /// The lease of the message.
  public let lease: Lease
  /// The value, or why there is none.
  public let payload: Result<Value, PenstockError>

  /// The value; throws `.undecodablePayload` when the body is none.
  public var value: Value { get throws(PenstockError) { try payload.get() } }
}

extension Queue {
  /// This queue with bodies that a codec makes and reads.
  public func typed<Codec: PayloadCodec>(_ codec: Codec) -> TypedQueue<Codec> {
    TypedQueue(queue: self, codec: codec)
  }
}
