package javax.annotation;

/** What the generated classes are marked with. Java itself has it no longer, and none of what the test needs brings it. */
public @interface Generated {
    String[] value();

    String date() default "";

    String comments() default "";
}
