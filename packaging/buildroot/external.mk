include $(BR2_EXTERNAL_LPAD_PATH)/lpad/lpad.mk
