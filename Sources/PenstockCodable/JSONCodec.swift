// SPDX-License-Identifier: Apache-2.0
internal import Foundation
public import Penstock

/// `Codable` values as JSON, keys sorted: equal values are equal bytes, as deduplication by content
/// needs them, where their members encode in one order.
public struct JSONCodec<Value: Codable & Sendable>: PayloadCodec {
  /// The codec of a type.
  public init(_ type: Value.Type = Value.self) {}

  public func encode(_ value: Value) throws -> [UInt8] {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    return Array(try encoder.encode(value))
  }

  public func decode(_ bytes: [UInt8]) throws -> Value {
    try JSONDecoder().decode(Value.self, from: Data(bytes))
  }
}

extension Queue {
  /// This queue with JSON of a `Codable` type as bodies.
  public func typed<Value: Codable & Sendable>(
    _ type: Value.Type
  ) -> TypedQueue<JSONCodec<Value>> {
    typed(JSONCodec(type))
  }
}
