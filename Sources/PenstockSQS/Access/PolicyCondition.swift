// SPDX-License-Identifier: Apache-2.0

/// One key of one operator, with the values that it may have.
struct PolicyCondition: Sendable {
  private let key: ContextKey
  private let test: Test
  private let form: ConditionOperator

  /// The values, read in the way of the operator.
  private enum Test: Sendable {
    /// Without wildcards.
    case equal([PolicyPattern])
    case like([PolicyPattern])
    case arn([ARNPattern])
    case number(Comparison, [PolicyNumber])
    case date(Comparison, [Int64])
    case bool([Bool])
    case address([IPRange])
    case isMissing([Bool])
  }

  /// Reads the values of a key. They are at least one.
  init(
    _ form: ConditionOperator, key: String, values: [String], variables: Bool
  ) throws(PolicyError) {
    self.key = ContextKey(key)
    self.form = form
    switch form.family {
    case .string(let wildcards):
      var patterns: [PolicyPattern] = []
      for value in values {
        patterns.append(
          try PolicyPattern(
            value, wildcards: wildcards, variables: variables, ignoresCase: form.ignoresCase))
      }
      test = wildcards ? .like(patterns) : .equal(patterns)
    case .arn:
      var patterns: [ARNPattern] = []
      for value in values {
        patterns.append(
          ARNPattern(try PolicyPattern(value, wildcards: true, variables: variables)))
      }
      test = .arn(patterns)
    case .numeric(let comparison):
      test = .number(comparison, try Self.read(values, "a number") { PolicyNumber($0) })
    case .date(let comparison):
      test = .date(comparison, try Self.read(values, "a date") { PolicyDate.milliseconds($0) })
    case .bool: test = .bool(try Self.read(values, "true or false") { Self.bool($0) })
    case .address:
      test = .address(try Self.read(values, "an address or a range of them") { IPRange($0) })
    case .null: test = .isMissing(try Self.read(values, "true or false") { Self.bool($0) })
    }
  }

  private static func read<Value>(
    _ values: [String], _ what: String, _ read: (String) -> Value?
  ) throws(PolicyError) -> [Value] {
    var result: [Value] = []
    for value in values {
      guard let value = read(value) else {
        throw PolicyError("\"\(SQSError.echo(value, 64))\" is not \(what)")
      }
      result.append(value)
    }
    return result
  }

  private static func bool(_ text: String) -> Bool? {
    switch text.utf8.count <= 5 ? text.lowercased() : "" {
    case "true": true
    case "false": false
    default: nil
    }
  }

  func holds(for request: AccessRequest) -> Bool {
    let value = request.value(of: key)
    if case .isMissing(let wanted) = test { return wanted.contains(value.isMissing) }
    func holds(_ text: String) -> Bool { matches(text, request) != form.isNegated }
    switch value {
    case .missing:
      switch form.quantifier {
      case nil: return form.ifExists || form.isNegated
      case .anyValue: return form.ifExists
      case .allValues: return true
      }
    case .one(let text): return holds(text)
    case .many(let texts):
      switch form.quantifier {
      case .anyValue: return texts.contains(where: holds)
      case .allValues: return texts.allSatisfy(holds)
      case nil: return texts.contains { matches($0, request) } != form.isNegated
      }
    }
  }

  /// True when the text matches one of the values. One that cannot be read matches none.
  private func matches(_ text: String, _ request: AccessRequest) -> Bool {
    switch test {
    case .equal(let patterns):
      let text = form.ignoresCase ? text.lowercased() : text
      return patterns.contains {
        $0.bytes(for: request, comparedWith: text)?.elementsEqual(text.utf8) ?? false
      }
    case .like(let patterns):
      return patterns.contains {
        $0.bytes(for: request, comparedWith: text)
          .map { Glob.matches($0[...], text[...].utf8) } ?? false
      }
    case .arn(let patterns): return patterns.contains { $0.matches(text, for: request) }
    case .number(let comparison, let values):
      guard let number = PolicyNumber(text) else { return false }
      return values.contains { comparison.holds(number, $0) }
    case .date(let comparison, let values):
      guard let date = PolicyDate.milliseconds(text) else { return false }
      return values.contains { comparison.holds(date, $0) }
    case .bool(let values): return Self.bool(text).map(values.contains) ?? false
    case .address(let ranges):
      guard let address = IPAddress(text) else { return false }
      return ranges.contains { $0.contains(address) }
    case .isMissing: return false
    }
  }
}

/// How two values are compared.
enum Comparison: Sendable {
  case equal, less, lessOrEqual, greater, greaterOrEqual

  func holds<Value: Comparable>(_ left: Value, _ right: Value) -> Bool {
    switch self {
    case .equal: left == right
    case .less: left < right
    case .lessOrEqual: left <= right
    case .greater: left > right
    case .greaterOrEqual: left >= right
    }
  }
}

/// The operator of a condition, with what comes before and after its name.
struct ConditionOperator: Sendable {
  enum Family: Sendable {
    case string(wildcards: Bool)
    case numeric(Comparison)
    case date(Comparison)
    case bool
    case address
    case arn
    case null
  }

  /// For keys that have several values.
  enum Quantifier: Sendable { case anyValue, allValues }

  var family: Family
  var isNegated = false
  var ignoresCase = false
  /// A missing key is no obstacle.
  var ifExists = false
  var quantifier: Quantifier?

  /// Reads for example `ForAllValues:StringLikeIfExists`. The case counts.
  init(_ text: String) throws(PolicyError) {
    var name = text[...]
    for (prefix, quantifier) in [
      ("ForAnyValue:", Quantifier.anyValue), ("ForAllValues:", .allValues),
    ] where name.hasPrefix(prefix) {
      name = name.dropFirst(prefix.count)
      self.quantifier = quantifier
      break
    }
    if name.hasSuffix("IfExists") {
      name = name.dropLast(8)
      ifExists = true
    }
    switch name {
    case "StringEquals": family = .string(wildcards: false)
    case "StringNotEquals": (family, isNegated) = (.string(wildcards: false), true)
    case "StringEqualsIgnoreCase": (family, ignoresCase) = (.string(wildcards: false), true)
    case "StringNotEqualsIgnoreCase":
      (family, isNegated, ignoresCase) = (.string(wildcards: false), true, true)
    case "StringLike": family = .string(wildcards: true)
    case "StringNotLike": (family, isNegated) = (.string(wildcards: true), true)
    case "NumericEquals": family = .numeric(.equal)
    case "NumericNotEquals": (family, isNegated) = (.numeric(.equal), true)
    case "NumericLessThan": family = .numeric(.less)
    case "NumericLessThanEquals": family = .numeric(.lessOrEqual)
    case "NumericGreaterThan": family = .numeric(.greater)
    case "NumericGreaterThanEquals": family = .numeric(.greaterOrEqual)
    case "DateEquals": family = .date(.equal)
    case "DateNotEquals": (family, isNegated) = (.date(.equal), true)
    case "DateLessThan": family = .date(.less)
    case "DateLessThanEquals": family = .date(.lessOrEqual)
    case "DateGreaterThan": family = .date(.greater)
    case "DateGreaterThanEquals": family = .date(.greaterOrEqual)
    case "Bool": family = .bool
    case "IpAddress": family = .address
    case "NotIpAddress": (family, isNegated) = (.address, true)
    case "ArnEquals", "ArnLike": family = .arn
    case "ArnNotEquals", "ArnNotLike": (family, isNegated) = (.arn, true)
    case "Null" where !ifExists && quantifier == nil: family = .null
    default: throw PolicyError("there is no such operator")
    }
  }
}
